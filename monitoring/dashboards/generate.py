#!/usr/bin/env python3
"""Writes the Grafana dashboards of this folder from the short descriptions below.

Usage: generate.py [--check]. With --check nothing is written; the exit code is 1 if a committed file differs.
"""
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATE = "[$__rate_interval]"


def rate(metric, labels="", by=""):
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{{{labels}}}{RATE}))"


def quantile(q, metric, labels):
    return f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{labels}}}{RATE})))"


def quantiles(metric, labels):
    return [(quantile(q, metric, labels), f"p{round(q * 100)}") for q in (0.5, 0.95, 0.99)]


def mean(metric, labels):
    return f"sum(rate({metric}_sum{{{labels}}}{RATE})) / sum(rate({metric}_count{{{labels}}}{RATE}))"


GATEWAY = 'model=~"$model"'
NODE = 'model=~"$model",replica=~"$replica"'

# (title, description, unit, [(expression, legend)])
ROWS = [
    ("Service", [
        ("Requests", "Requests that ended, by outcome.", "reqps",
         [(rate("muselet_requests_total", GATEWAY, "outcome"), "{{outcome}}")]),
        ("In flight", "Requests that the gateways hold now.", "short",
         [(f"sum by (gateway) (muselet_gateway_requests_in_flight{{{GATEWAY}}})", "{{gateway}}")]),
        ("Tokens", "Prompt tokens admitted, tokens delivered.", "short",
         [(rate("muselet_prompt_tokens_total", GATEWAY), "prompt tokens/s"),
          (rate("muselet_generation_tokens_total", GATEWAY), "generated tokens/s")]),
        ("Time to first token", "From the arrival of a request to its first token.", "s",
         quantiles("muselet_time_to_first_token_seconds", GATEWAY)),
        ("Inter-token time", "Between two tokens of one answer.", "s",
         quantiles("muselet_inter_token_seconds", GATEWAY)),
        ("Request duration", "From the arrival of a request to its end.", "s",
         quantiles("muselet_request_duration_seconds", GATEWAY)),
        ("Queue time", "Until a request has a place on a replica.", "s",
         quantiles("muselet_request_queue_seconds", GATEWAY)),
        ("Prompt and answer length", "Mean tokens of a request.", "short",
         [(mean("muselet_request_prompt_tokens", GATEWAY), "prompt"),
          (mean("muselet_request_generation_tokens", GATEWAY), "answer")]),
        ("Retries", "Attempts after the first, because a replica was lost.", "short",
         [(rate("muselet_request_retries_total", GATEWAY), "retries/s")]),
    ]),
    ("Replicas", [
        ("Sequences", "Being computed, and waiting for the KV cache.", "short",
         [(f"sum by (replica) (muselet_sequences_running{{{NODE}}})", "{{replica}} running"),
          (f"sum by (replica) (muselet_sequences_waiting{{{NODE}}})", "{{replica}} waiting")]),
        ("KV cache", "Used share of the KV blocks.", "percentunit",
         [(f"muselet_kv_usage_ratio{{{NODE}}}", "{{replica}}")]),
        ("Step time", "Duration of one step.", "s", quantiles("muselet_step_seconds", NODE)),
        ("Batch", "Mean sequences and rows of a step.", "short",
         [(mean("muselet_step_sequences", NODE), "sequences"),
          (mean("muselet_step_rows", NODE), "rows")]),
        ("Work", "Prefill rows computed and tokens sampled.", "short",
         [(rate("muselet_prefill_tokens_total", NODE), "prefill rows/s"),
          (rate("muselet_decode_tokens_total", NODE), "tokens sampled/s")]),
        ("Prefix cache", "Share of looked-up prompt tokens that were found.", "percentunit",
         [("sum(rate(muselet_prefix_cache_hit_tokens_total{%s}%s)) / "
           "sum(rate(muselet_prefix_cache_query_tokens_total{%s}%s))" % (NODE, RATE, NODE, RATE),
           "hit ratio")]),
        ("Preemptions", "Sequences paused because KV blocks ran out.", "short",
         [(rate("muselet_preemptions_total", NODE, "replica"), "{{replica}}")]),
        ("Age of the last step", "Grows while a replica is idle or hangs.", "s",
         [(f"time() - muselet_last_step_timestamp_seconds{{{NODE}}}", "{{replica}}")]),
        ("Models", "Which model runs where, with which numerics.", "short",
         [('muselet_model_info{model=~"$model"}', "{{model}} {{numerics}}")]),
    ]),
    ("Ranks", [
        ("Ranks joined", "Of the ranks that a sharded replica needs.", "short",
         [('sum by (replica) (muselet_ranks_joined{replica=~"$replica"})', "{{replica}} joined"),
          ('sum by (replica) (muselet_ranks{replica=~"$replica"})', "{{replica}} needed")]),
        ("Losses of ranks", "Epochs that a rank's loss ended, by reason.", "short",
         [(rate("muselet_rank_losses_total", 'replica=~"$replica"', "reason"), "{{reason}}"),
          (rate("muselet_rank_epochs_formed_total", 'replica=~"$replica"'), "formed")]),
        ("Forming time", "Without an epoch, until all ranks were ready.", "s",
         quantiles("muselet_rank_forming_seconds", 'replica=~"$replica"')),
    ]),
    ("Scheduler", [
        ("Waiting and placed", "Requests in line, and requests on replicas.", "short",
         [("sum by (scheduler) (muselet_scheduler_requests_waiting)", "{{scheduler}} waiting"),
          ("sum by (scheduler) (muselet_scheduler_requests_placed)", "{{scheduler}} placed")]),
        ("Decisions", "Places given, requests refused, attempts lost.", "short",
         [(rate("muselet_scheduler_tickets_total"), "tickets/s"),
          (rate("muselet_scheduler_refusals_total"), "refusals/s"),
          (rate("muselet_scheduler_losses_total"), "losses/s")]),
        ("Waiting time", "From asking for a place to getting it.", "s",
         quantiles("muselet_scheduler_queue_seconds", "")),
        ("Peers", "Nodes and gateways that are alive.", "short",
         [("max by (scheduler) (muselet_scheduler_nodes)", "{{scheduler}} nodes"),
          ("max by (scheduler) (muselet_scheduler_gateways)", "{{scheduler}} gateways")]),
        ("Peers gone", "Nodes and gateways that left in order, and that were lost.", "short",
         [(rate("muselet_scheduler_peers_left_total"), "left/s"),
          (rate("muselet_scheduler_peers_lost_total"), "lost/s")]),
        ("Replicas ready", "Replicas that can take requests.", "short",
         [('max by (model) (muselet_scheduler_replicas_ready{model=~"$model"})', "{{model}}")]),
    ]),
    ("Processes", [
        ("CPU", "Cores used.", "short",
         [("sum by (instance) (rate(process_cpu_seconds_total{job=~\"$job\"}%s))" % RATE,
           "{{instance}}")]),
        ("Resident memory", "Memory in use.", "bytes",
         [('process_resident_memory_bytes{job=~"$job"}', "{{instance}}")]),
        ("Open files", "File descriptors in use.", "short",
         [('process_open_fds{job=~"$job"}', "{{instance}}")]),
        ("HTTP responses", "By class of status code.", "reqps",
         [(rate("muselet_http_responses_total", "", "code"), "{{code}}")]),
        ("HTTP connections", "Open now.", "short",
         [("sum by (gateway) (muselet_http_connections)", "{{gateway}}")]),
        ("Builds", "Versions that are running.", "short",
         [("count by (version, revision) (muselet_build_info)", "{{version}} {{revision}}")]),
    ]),
]


def panel(identifier, spec, x, y):
    title, description, unit, targets = spec
    return {
        "id": identifier,
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": 8, "h": 7},
        "fieldConfig": {
            "defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 8, "showPoints": "never"}},
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"},
                    "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": DATASOURCE, "expr": expr,
             "legendFormat": legend}
            for i, (expr, legend) in enumerate(targets)
        ],
    }


def variable(name, query):
    return {"name": name, "type": "query", "datasource": DATASOURCE, "query": query,
            "definition": query, "refresh": 2, "includeAll": True, "allValue": ".*", "multi": True,
            "current": {"text": "All", "value": "$__all"}, "sort": 1}


def overview():
    panels, identifier, y = [], 1, 0
    for row_title, specs in ROWS:
        panels.append({"id": identifier, "type": "row", "title": row_title, "collapsed": False,
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []})
        identifier, y = identifier + 1, y + 1
        for i, spec in enumerate(specs):
            panels.append(panel(identifier, spec, 8 * (i % 3), y + 7 * (i // 3)))
            identifier += 1
        y += 7 * ((len(specs) + 2) // 3)
    return {
        "uid": "muselet-overview",
        "title": "muselet: overview",
        "tags": ["muselet"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus",
             "current": {"text": "Prometheus", "value": "prometheus"}},
            variable("job", "label_values(muselet_build_info, job)"),
            variable("model", "label_values(muselet_model_info, model)"),
            variable("replica", "label_values(muselet_sequences_running, replica)"),
        ]},
        "annotations": {"list": []},
        "panels": panels,
    }


def main():
    path = HERE / "overview.json"
    text = json.dumps(overview(), indent=1) + "\n"
    if "--check" in sys.argv:
        return 0 if path.read_text() == text else 1
    path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
