# A BIDS App: docker run --rm --user "$(id -u):$(id -g)" -v DATASET:/data:ro -v RESULTS:/out sct_deepspine /data /out participant
FROM python:3.12-slim
COPY . /src
RUN pip install --no-cache-dir /src && rm -r /src
USER 65534
ENV MPLCONFIGDIR=/tmp
ENTRYPOINT ["sct_deepspine_bids"]
