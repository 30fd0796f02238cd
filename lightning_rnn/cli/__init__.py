"""The command line: arguments, LightningCLI, launchers, commands and exit codes."""
