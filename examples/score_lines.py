"""Score lines as they come: `name value value ...` is a step of that sequence, a name alone ends it."""

import sys

from lightning_rnn import StreamingClassifier

stream = StreamingClassifier(sys.argv[1])  # step.onnx, written by `export --streaming true`
for line in sys.stdin:
    if not (words := line.split()):
        continue
    name, *values = words
    if values:
        (probability,) = stream.update([name], [[float(value) for value in values]])
        print(name, probability, flush=True)
    else:
        stream.forget([name])
