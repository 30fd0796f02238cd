"""Run every benchmark."""

from benchmarks import whole_command

whole_command.main()
