# CPU and NVIDIA GPU (the torch wheels for x86-64 Linux contain CUDA):
#   docker build -t lightning_rnn .
#   docker run --rm -v "$PWD:/work" lightning_rnn fit --data.train_path train.csv
#   docker run --rm --gpus all -v "$PWD:/work" lightning_rnn fit --data.train_path train.csv
# CPU only, several GB smaller: TORCH_OPTIONS are the options of pip that pytorch.org shows for a CPU
#   docker build -t lightning_rnn:cpu --build-arg TORCH_OPTIONS="OPTIONS" .
FROM python:3.11-slim

ARG TORCH_OPTIONS=""
WORKDIR /src
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt $TORCH_OPTIONS torch
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY lightning_rnn lightning_rnn
RUN pip install --no-cache-dir --constraint constraints.txt ".[export,figures,sklearn]"

# the user of the mounted folder: docker run --user "$(id -u):$(id -g)"
RUN useradd --create-home user
USER user
WORKDIR /work
ENV MPLCONFIGDIR=/tmp/matplotlib
ENTRYPOINT ["lightning-rnn"]
CMD ["--help"]
