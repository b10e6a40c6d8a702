"""The program as a user meets it on the command line: faults are one line with the fix, exit code 2, at once."""
import json
import socket
import subprocess
import time

import pytest

from conftest import MODEL, MODEL_ID, MUSELET, ROOT, serve_config, write_config


def run(*arguments, **options):
    return subprocess.run([str(MUSELET), *map(str, arguments)], capture_output=True, text=True,
                          timeout=60, **options)


def fault(*arguments):
    """The one line that a refused command prints."""
    begin = time.monotonic()
    result = run(*arguments)
    assert result.returncode == 2, (result.returncode, result.stdout, result.stderr)
    assert time.monotonic() - begin < 5
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_help_groups_the_commands():
    text = run("--help").stdout
    for command in ("serve", "run", "chat", "bench", "config", "model", "version"):
        assert command in text


def test_misspelt_commands_get_a_suggestion():
    result = run("serv")
    assert result.returncode == 2
    assert "serve" in result.stderr


def test_misspelt_flags_get_a_suggestion():
    result = run("serve", "--confg", "x")
    assert result.returncode == 2
    assert "--config" in result.stderr


def test_version_is_told_to_people_and_to_programs():
    assert run("version").stdout.startswith("muselet ")
    assert "version" in json.loads(run("version", "--json").stdout)


def test_model_inspect_shows_what_a_checkpoint_is():
    text = run("model", "inspect", MODEL).stdout
    assert "llama" in text and "q4_1" in text
    as_json = json.loads(run("model", "inspect", MODEL, "--json").stdout)
    assert as_json["architecture"] == "llama"


def test_a_missing_model_is_named():
    assert "/no/such/model.gguf" in fault("serve", "/no/such/model.gguf")


def test_a_truncated_model_is_named_with_the_field(tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(MODEL.read_bytes()[:3_000_000])
    assert "cut.gguf" in fault("serve", cut)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    noise = tmp_path / "noise.gguf"
    noise.write_bytes(bytes(range(256)) * 100)
    assert "noise.gguf" in fault("serve", noise)


def test_a_taken_port_is_told_with_the_fix(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = fault("serve", "--config", serve_config(tmp_path / "c.yaml"), "--http", address)
    assert address in line and "--http" in line


def test_all_faults_of_a_config_are_told_at_once_with_their_place(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("models:\n  - id: m\n    path: /no/such.gguf\ngatways: []\nbatch:\n"
                    "  sequences_max: -3\n")
    result = run("config", "check", path)
    assert result.returncode == 2
    assert f"{path}:3:" in result.stderr
    assert f"{path}:4:1: gatways" in result.stderr and "gateways" in result.stderr
    assert f"{path}:6:" in result.stderr


def test_the_sample_configs_pass_the_published_schema():
    samples = sorted((ROOT / "deploy" / "config").glob("*.yaml"))
    assert samples
    checker = ROOT / "build" / "venv" / "bin" / "check-jsonschema"
    result = subprocess.run([str(checker), "--schemafile",
                             str(ROOT / "deploy" / "config" / "schema.json"), *map(str, samples)],
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_chat_prints_a_streamed_answer_with_its_speed(server):
    result = run("chat", "--url", server.url, "--once", "What is 2+2?",
                 "--temperature", "0", "--max-tokens", "32")
    assert result.returncode == 0, result.stderr
    assert "4" in result.stdout
    assert "tokens/s" in result.stdout + result.stderr


def test_bench_measures_a_server(server, tmp_path):
    report = tmp_path / "report.json"
    result = run("bench", server.url, "--concurrency", "4", "--requests", "8", "--max-tokens", "8",
                 "--prompts", ROOT / "tests" / "bench" / "prompts" / "mt_bench.jsonl",
                 "--json", report)
    assert result.returncode == 0, result.stderr
    numbers = json.loads(report.read_text())
    assert numbers, result.stdout


def test_serve_takes_just_a_model_and_a_tokenizer_is_not_needed(tmp_path):
    from conftest import Server
    import urllib.request
    import shutil
    source = ROOT / "tests" / "golden" / "models" / "llama-tied-gqa"
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(source / name, folder / name)
    running = Server(folder, "--http", "127.0.0.1:0")
    try:
        model = json.load(urllib.request.urlopen(f"{running.url}/v1/models"))["data"][0]["id"]
        body = {"model": model, "prompt": [5, 6, 7], "max_tokens": 4, "return_token_ids": True,
                "ignore_eos": True}
        request = urllib.request.Request(f"{running.url}/v1/completions", json.dumps(body).encode(),
                                         {"content-type": "application/json"})
        answer = json.load(urllib.request.urlopen(request))
        assert len(answer["choices"][0]["token_ids"]) == 4
    finally:
        assert running.stop() == 0


def test_resident_memory_stays_below_the_promise(server):
    assert server.resident_bytes() < 450e6


@pytest.mark.parametrize("sections", [{"models": []}, {"surfaces": [{"name": "a", "share": -1}]}])
def test_impossible_values_are_refused(tmp_path, sections):
    path = write_config(tmp_path / "c.yaml",
                        **{"models": [{"id": MODEL_ID, "path": str(MODEL)}], **sections})
    assert run("config", "check", path).returncode == 2
