# The gateway, or a worker host, in a container: `docker build -t gatehouse .`
# Dependencies are a layer of their own, so a change of code builds in seconds.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/gatehouse
ENV PATH=/opt/gatehouse/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY shared/version.py shared/version.py
RUN mkdir gateway worker && pip install -c constraints.txt ".[postgres]"
COPY gateway gateway
COPY worker worker
COPY shared shared
RUN pip install --no-deps --force-reinstall .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin gatehouse \
    && install -d -o gatehouse -g gatehouse -m 0700 /data
COPY --from=build /opt/gatehouse /opt/gatehouse
# Tools of yours: mount or copy them into /app and name them in GATEHOUSE_TOOLS.
WORKDIR /app
ENV PATH=/opt/gatehouse/bin:$PATH PYTHONUNBUFFERED=1 GATEHOUSE_DATA_DIR=/data PORT=8000 GATEHOUSE_HOST=0.0.0.0
# a number, so that a cluster that runs no root can tell
USER 10001
VOLUME /data
EXPOSE 8000
# Turns park at their next step within 25 s of a SIGTERM: `docker stop --time 30`, `stop_grace_period: 30s`.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["gatehouse", "status"]
# On every address a gateway needs GATEHOUSE_API_KEYS; without them it says so and ends.
CMD ["gatehouse"]
