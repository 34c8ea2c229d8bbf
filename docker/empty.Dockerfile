# What a KServe image weighs that does nothing, built in the same way: `make image` compares the transformer with it.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/empty
ENV PIP_CONSTRAINT=/build/requirements.lock PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements.lock ./
RUN /opt/pip/bin/pip --python /opt/empty/bin/python install --no-compile kserve && \
    /opt/empty/bin/python -m compileall -q /opt/empty/lib

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/empty /opt/empty
USER 1000:1000
