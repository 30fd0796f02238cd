"""A path that begins with ~ is in the home folder, in every option that is a path."""

from pathlib import Path

from helpers import TINY


def test_every_path_may_begin_with_the_home_folder(empty, tmp_path, monkeypatch, run_ok):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    rows = [f"s{i},{i % 2},{i / 7}" for i in range(20)]
    (home / "values.csv").write_text("id,a,b\n" + "\n".join(rows) + "\n")
    labels = [f"s{i},{'up' if i % 2 else 'down'}" for i in range(20)]
    (home / "labels.csv").write_text("id,label\n" + "\n".join(labels) + "\n")
    (home / "small.yaml").write_text("model: {hidden_size: 4}\n")
    columns = ("--data.id_column", "id", "--data.labels_path", "~/labels.csv")
    run_ok("inspect", "~/values.csv", *columns)
    options = ("--id_column", "id", "--labels_path", "~/labels.csv")
    run_ok("pack", "--input", "~/values.csv", "--output", "~/packed", *options)
    fit = (*TINY, "--config", "~/small.yaml", "--trainer.default_root_dir", "~/runs")
    paths = ("--data.train_path", "~/packed", "--data.val_path", "~/packed")
    run_ok("fit", *fit, *paths, "--data.test_path", "~/packed")
    best = "~/runs/lightning_logs/version_0/checkpoints/best.ckpt"
    run_ok("fit", *fit, *paths, "--init_from", best)
    run_ok("test", "--ckpt_path", best, "--data.test_path", "~/packed")
    predict = ("--data.predict_path", "~/packed", "--output", "~/predictions.csv")
    run_ok("predict", "--ckpt_path", best, *predict)
    run_ok("export", "--ckpt_path", best, "--output", "~/model.onnx")
    assert (home / "runs/lightning_logs/version_1").is_dir()
    assert len((home / "predictions.csv").read_text().splitlines()) == 21
    assert (home / "model.onnx").is_file()
    assert not list(Path.cwd().iterdir())
