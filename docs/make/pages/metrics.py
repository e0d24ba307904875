"""The reference of the metrics, generated from the registry of a service that is not started."""

from __future__ import annotations

from prometheus_client.metrics_core import Metric

from pages.markdown import code, codes, table
from senoscope.api.app import create_app
from senoscope.metrics import catalogue
from senoscope.service import Service
from senoscope.settings import Settings

_HEAD = """# Metrics

`GET /metrics` returns metrics for [Prometheus](https://prometheus.io), in its text format or, where the
`Accept` header asks for it, as OpenMetrics. It works before the service is ready. With API keys, the
request needs a key of scope `read`:

```sh
senoscope keys new --api-keys keys.json --name prometheus --scope read > senoscope.key
```

Store the key where Prometheus can read it:

```yaml
# prometheus.yml
scrape_configs:
  - job_name: senoscope
    scrape_interval: 5s
    scheme: https                # http where the service has no certificate
    authorization:
      type: Bearer
      credentials_file: /etc/prometheus/senoscope.key
    static_configs:
      - targets: ["scanner.lab.example:8750"]
```

`docker/grafana/senoscope.json` is a dashboard for Grafana: import it and choose the data source. The 99th
percentile of the latency of live frames, to compare with the deadline, is

```promql
histogram_quantile(0.99, sum by (le) (rate(senoscope_fov_latency_seconds_bucket{source="live"}[5m])))
```

The buckets are narrow around `--deadline-ms`, or around 24 ms if it is not given; the deadline is one of
them, so the share of frames that met it is exact. `source` and `lane` are `live` (the stream) or `batch`
(posted stacks); `route` is the template of a route, or `none` where no route matched or the request was
refused. No label has a value that a client chooses. On Linux, `process_...` reports memory, processor time
and open files of the process. On a GPU, its memory is reported if `nvidia-ml-py` is installed (extra
`gpu`). Messages that ZeroMQ drops for a slow subscriber are not counted, because ZeroMQ does not report
them.

Generated from `senoscope.metrics.catalogue` by `python docs/make/reference.py`.

"""


def page() -> str:
    """Return the reference as Markdown."""
    service = Service(Settings(database_url="none", stream="", results="", otlp_endpoint=""))
    create_app(service)
    there = {family.name: family for family in service.registry.collect()}
    rows = [_row(declared, there[declared.family]) for declared in catalogue.ALL]
    return _HEAD + table(("metric", "type", "labels", "unit", ""), rows)


def _row(declared: catalogue.Declared, family: Metric) -> tuple[str, ...]:
    return code(declared.name), family.type, codes(declared.labels), family.unit, family.documentation
