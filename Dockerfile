# A BIDS App: docker run --rm --user "$(id -u):$(id -g)" -v DATASET:/data:ro -v RESULTS:/out sct_deepspine /data /out participant
# The multi-platform index of the tag. A newer one: docker buildx imagetools inspect python:3.12-slim-bookworm
FROM python:3.12.14-slim-bookworm@sha256:782412e85d0f0984994c290652577d4018aff08145c85b262bb63dc0c7522254
COPY . /src
RUN pip install --no-cache-dir /src && rm -r /src
USER 65534
ENV MPLCONFIGDIR=/tmp
ENTRYPOINT ["sct_deepspine_bids"]
