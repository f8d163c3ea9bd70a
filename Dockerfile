# The commands of unispeech_sb, for CPUs or, by a build argument, NVIDIA GPUs:
#
#   docker build -t unispeech-sb .
#   docker build -t unispeech-sb:gpu --build-arg DEVICE=gpu .
#
# Files are read and written in /data, models are kept in /cache:
#
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" \
#       -v unispeech-sb:/cache unispeech-sb transcribe asr talk.wav
#
# The service and its page, at http://localhost:8000:
#
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD:/data" \
#       -e UNISPEECH_SB_API_KEY unispeech-sb serve asr --host 0.0.0.0
#
# With a GPU: --gpus all, the image unispeech-sb:gpu, and --device cuda at the end.
FROM python:3.11-slim

# ffmpeg reads what libsndfile does not: m4a, webm, ... Its version is Debian's.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ffmpeg \
    && rm -rf /var/lib/apt/lists/*

ARG DEVICE=cpu
WORKDIR /opt/unispeech_sb
COPY setup.cfg pyproject.toml constraints.txt README.md LICENSE ./
COPY plugin plugin
COPY hparams hparams
COPY recipes recipes
COPY unispeech_sb unispeech_sb

# torch of PyPI brings CUDA; that of PyTorch's own index for CPUs is a quarter
RUN case "$DEVICE" in \
        cpu) export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu ;; \
        gpu) ;; \
        *) echo "DEVICE: expected cpu or gpu; got $DEVICE" >&2; exit 1 ;; \
    esac \
    && pip install --no-cache-dir -c constraints.txt '.[demo,serve,superb]'

# Any user may run it
ENV XDG_CACHE_HOME=/cache HF_HOME=/cache/huggingface MPLCONFIGDIR=/cache \
    PYTHONUNBUFFERED=1
RUN mkdir -p /cache /data && chmod 1777 /cache /data
VOLUME /cache
WORKDIR /data
USER 65534:65534
ENTRYPOINT ["unispeech-sb"]
CMD ["--help"]
