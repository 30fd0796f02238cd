# CPU and NVIDIA GPU (the torch wheels for x86-64 Linux contain CUDA):
#   docker build -t lightning_rnn .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" lightning_rnn fit --data.train_path train.csv
# with --gpus all before the name of the image it uses the GPU
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

# for those who forget --user, which the owner of the mounted folder should be
RUN useradd --create-home user
USER user
WORKDIR /work
ENV MPLCONFIGDIR=/tmp/matplotlib
ENTRYPOINT ["lightning-rnn"]
CMD ["--help"]
