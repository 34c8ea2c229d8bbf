# The transformer: the wheel and its locked runtime dependencies on a slim Python, as an ordinary user.
# Build it from the root of the repository:  make image   (or: docker build -f docker/transformer.Dockerfile .)
# Python 3.11 to 3.13, by tag or by digest.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
# pip lives in an environment of its own, so that it is not shipped.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/mnist-pipeline
ENV PIP_CONSTRAINT=/build/requirements.lock PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# Dependencies come first: they change less often than the code. With those of traces, which a variable then turns on.
COPY requirements.lock pyproject.toml ./
RUN python3 -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    print(*project['dependencies'], *project['optional-dependencies']['otel'], sep='\n')" > runtime.txt && \
    /opt/pip/bin/pip --python /opt/mnist-pipeline/bin/python install --no-compile -r runtime.txt
COPY README.md LICENSE ./
COPY src src
RUN /opt/pip/bin/pip wheel --no-deps --wheel-dir dist . && \
    /opt/pip/bin/pip --python /opt/mnist-pipeline/bin/python install --no-compile --no-deps dist/*.whl && \
    # The file system will be read-only: what is not compiled now would be at every start.
    /opt/mnist-pipeline/bin/python -m compileall -q /opt/mnist-pipeline/lib

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mnist-pipeline" \
      org.opencontainers.image.description="A KServe transformer: images arrive in MinIO, predictions leave through Kafka" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/mnist-pipeline /opt/mnist-pipeline
ENV PATH=/opt/mnist-pipeline/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /
EXPOSE 8080 8081
# Calm whatever is away: who restarts a transformer because Kafka is down makes it worse.
# Without the proxy that Docker's own configuration gives every container: urllib would ask it for 127.0.0.1.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8080/v2/health/live', timeout=4)"]
# KServe's controller appends --model_name, --predictor_host and --http_port.
ENTRYPOINT ["python", "-m", "mnist_pipeline"]
