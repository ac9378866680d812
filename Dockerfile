# Cirilla for everyone who does not use Spaces:
#
#     docker build -t cirilla .
#     docker run -p 7860:7860 -v cirilla:/data cirilla
#
# On a computer without an NVIDIA card, point pip at PyTorch's CPU builds (the address is on pytorch.org, “Get
# started”), or the image carries gigabytes of CUDA:
#
#     docker build --build-arg TORCH="--index-url <CPU builds>" -t cirilla .
FROM python:3.11-slim

ARG TORCH=""

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

# FAISS and torch share OpenMP's runtime, which the slim image leaves out.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 cirilla \
    && install -d -o cirilla -g cirilla /data

WORKDIR /cirilla

# torch first and by itself: any other package that asks for it could bring another build.
COPY requirements.txt ./
RUN pip install $TORCH "$(grep '^torch==' requirements.txt)" \
    && pip install -r requirements.txt

COPY app.py README.md LICENSE ./
COPY app app
COPY corpus corpus
COPY encoder encoder
COPY lm lm
COPY retrieval retrieval
COPY weights weights
RUN python -m compileall -q app.py app corpus encoder lm retrieval

USER cirilla

# The codex's index is made once, here; a new, empty volume is filled with it by Docker.
ENV CIRILLA_DATA=/data \
    CIRILLA_HOST=0.0.0.0 \
    CIRILLA_PORT=7860
RUN python app.py --ingest --codex-only

VOLUME /data
EXPOSE 7860

HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['CIRILLA_PORT'] + '/gradio_api/startup-events', timeout=4)"]

# Ctrl-C and `docker stop` end it the same way.
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "app.py"]
