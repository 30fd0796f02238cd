"""Score lines as they arrive: `name value value ...` is a step, a name alone ends its sequence."""

import sys

from lightning_rnn import StreamingClassifier

stream = StreamingClassifier(sys.argv[1])  # written by: lightning-rnn export --streaming true
for line in sys.stdin:
    words = line.split()
    if len(words) > 1:
        name, *values = words
        (probability,) = stream.update([name], [[float(value) for value in values]])
        print(name, probability, flush=True)
    elif words:
        stream.forget(words)
