"""What `COMMAND --help` lists: the options that are used most, by command and group."""

EVALUATION = {
    "ckpt_path": "checkpoint file, or best (default) or last of the newest run",
    "config": "YAML file with options",
    "allow_data_change": "true: accept data settings other than those of the training",
    "data.batch_size": "sequences per batch",
    "trainer.devices": "number of GPUs or processes",
    "trainer.accelerator": "cpu, gpu, or auto",
}
SHORT_HELP: dict[str, dict[str, dict[str, str]]] = {
    "fit": {
        "data": {
            "data.train_path": "file of your sequences; without one, a synthetic task is learned",
            "data.test_path": "file of sequences for `test`",
            "data.val_fraction": "share of the training file for validation",
            "data.label_column": "column of the class",
            "data.id_column": "column that tells sequences apart, if a row is a time step",
            "data.batch_size": "sequences per training batch",
        },
        "model": {
            "model.cell": "recurrent cell",
            "model.hidden_size": "width of the state",
            "model.num_layers": "number of recurrent layers",
            "model.bidirectional": "true: read each sequence backwards, too",
            "model.stem": "convolutions before the cells",
            "model.dropout": "probability of dropping an input",
            "model.lr": "learning rate",
        },
        "run": {
            "trainer.max_epochs": "number of passes over the training sequences",
            "trainer.devices": "number of GPUs or processes",
            "seed_everything": "random seed of weights and dropout",
            "config": "YAML file with options; those typed after it take precedence",
            "preset": "settings to start from",
            "ckpt_path": "run to continue: a checkpoint file, last, best, or auto",
            "init_from": "checkpoint file whose weights a new run starts with",
        },
    },
    "validate": {"options": {"data.val_path": "file of labelled sequences", **EVALUATION}},
    "test": {
        "options": {
            "data.test_path": "file of labelled sequences",
            "earliness": "true: evaluate beginnings of sequences, too",
            **EVALUATION,
        },
    },
    "predict": {
        "options": {
            "data.predict_path": "file of sequences, labelled or not",
            "output": "file to write: .csv or .parquet",
            "overwrite": "true: replace an existing file",
            "embeddings": "true: add the states that the head classifies",
            **EVALUATION,
        },
    },
}
COMMON_OPTIONS = {name for texts in SHORT_HELP["fit"].values() for name in texts}
