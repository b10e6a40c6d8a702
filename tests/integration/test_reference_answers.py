"""The default model end to end, against the answers of the reference implementation (tests/golden/smollm2)."""
import json
import urllib.request

from conftest import MODEL_ID


def post(server, path, body):
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request))


def pytest_generate_tests(metafunc):
    if "prompt_index" in metafunc.fixturenames:
        metafunc.parametrize("prompt_index", range(12))


def test_text_becomes_the_reference_ids(server, golden, prompt_index):
    prompt = golden["prompts"][prompt_index]
    answer = post(server, "/tokenize", {"model": MODEL_ID, "prompt": prompt["text"],
                                        "add_special_tokens": False})
    assert answer["tokens"] == prompt["ids"]


def test_conversations_become_the_reference_text(server, golden, prompt_index):
    prompt = golden["prompts"][prompt_index]
    if "messages" not in prompt:
        prompt = next(p for p in golden["prompts"] if "messages" in p)
    answer = post(server, "/tokenize", {"model": MODEL_ID, "messages": prompt["messages"],
                                        "add_generation_prompt": True})
    assert answer["tokens"] == prompt["ids"]


def test_greedy_ids_and_text_equal_the_reference(float_server, golden, prompt_index):
    prompt = golden["prompts"][prompt_index]
    answer = post(float_server, "/v1/completions", {
        "model": MODEL_ID, "prompt": prompt["ids"], "max_tokens": 64, "temperature": 0, "logprobs": 5,
        "ignore_eos": True, "return_token_ids": True, "skip_special_tokens": False})
    choice = answer["choices"][0]
    assert choice["token_ids"] == prompt["greedy"]
    assert choice["text"] == prompt["greedy_text"]


def test_top_logprobs_equal_the_reference(float_server, golden, prompt_index):
    prompt = golden["prompts"][prompt_index]
    answer = post(float_server, "/v1/completions", {
        "model": MODEL_ID, "prompt": prompt["ids"], "max_tokens": 64, "temperature": 0, "logprobs": 5,
        "ignore_eos": True, "skip_special_tokens": False})
    logprobs = answer["choices"][0]["logprobs"]
    for position, top in enumerate(prompt["top5"]):
        assert abs(logprobs["token_logprobs"][position] - top[0][1]) <= 1e-2, position
        ours = sorted(logprobs["top_logprobs"][position].values(), reverse=True)[:5]
        for value, (_, expected) in zip(ours, top):
            assert abs(value - expected) <= 1e-2, position
