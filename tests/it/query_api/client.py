"""Asks a server of Prometheus' HTTP API with prometheus-api-client and prints what it gets."""

import datetime
import json
import sys

from prometheus_api_client import PrometheusConnect

url, instant, start, end = sys.argv[1], *map(int, sys.argv[2:5])
client = PrometheusConnect(url=url)


def time(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


def told(question, answer):
    print(json.dumps({"question": question, "answer": answer}), flush=True)


told("connection", client.check_prometheus_connection())
told("metrics", client.all_metrics())
told("names", client.get_label_names())
told("values", client.get_label_values("cluster"))
told("query", client.custom_query('sum by (cluster, job) (http_requests_total{cluster="eu-1"})',
                                  params={"time": instant}))
told("range", client.custom_query_range('http_requests_total{instance="10.0.0.1:9100"}',
                                        start_time=time(start), end_time=time(end), step="60"))
told("selector", client.get_current_metric_value("http_requests_total",
                                                 label_config={"cluster": "eu-1"},
                                                 params={"time": instant}))
told("targets", client.get_targets("active"))
