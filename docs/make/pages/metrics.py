"""The reference of the metrics, made from the registry of a service that need not run."""

from __future__ import annotations

from prometheus_client.metrics_core import Metric

from pages.markdown import code, codes, table
from senoscope.api.app import create_app
from senoscope.metrics import catalogue
from senoscope.service import Service
from senoscope.settings import Settings

_HEAD = """# Metrics

`GET /metrics` is for [Prometheus](https://prometheus.io): its text format, or OpenMetrics for those who ask
for that. It answers before the service is ready, too. With API keys it needs one of scope `read`:

```sh
senoscope keys new --api-keys keys.json --name prometheus --scope read > senoscope.key
```

The key goes to where Prometheus can read it:

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

`docker/grafana/senoscope.json` is a dashboard for Grafana: import it and choose the data source. Whether
the deadline is kept, for one, is

```promql
histogram_quantile(0.99, sum by (le) (rate(senoscope_fov_latency_seconds_bucket{source="live"}[5m])))
```

The deadline itself is one of the buckets, so the share of frames that met it is exact. `source` and `lane`
are `live` (the stream) or `batch` (posted stacks); `route` is a route's template, or `none` where nothing was
found or the guard refused. No label has a value that a client chooses. On Linux the process's own memory,
processor time and files are told as well (`process_...`), and on a GPU its memory, if `nvidia-ml-py` is
installed (extra `gpu`). What ZeroMQ drops for a slow subscriber is not known, because it does not tell.

Made from `senoscope.metrics.catalogue` by `python docs/make/reference.py`.

"""


def page() -> str:
    """The reference as Markdown."""
    service = Service(Settings(database_url="none", stream="", results="", otlp_endpoint=""))
    create_app(service)
    there = {family.name: family for family in service.registry.collect()}
    rows = [_row(declared, there[declared.family]) for declared in catalogue.ALL]
    return _HEAD + table(("metric", "type", "labels", "unit", ""), rows)


def _row(declared: catalogue.Declared, family: Metric) -> tuple[str, ...]:
    return code(declared.name), family.type, codes(declared.labels), family.unit, family.documentation
