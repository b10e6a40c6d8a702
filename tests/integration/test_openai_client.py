"""The real `openai` client against a server with the default options."""
import json

import openai
import pytest

from conftest import MODEL_ID

QUESTION = [{"role": "user", "content": "What is 2+2?"}]


def test_models_lists_the_served_model(client):
    models = client.models.list().data
    assert [model.id for model in models] == [MODEL_ID]
    assert models[0].max_model_len > 1000


def test_chat_answers_with_usage_and_a_finish_reason(client):
    answer = client.chat.completions.create(model=MODEL_ID, messages=QUESTION, temperature=0,
                                            max_tokens=40)
    choice = answer.choices[0]
    assert "4" in choice.message.content
    assert choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens > 10
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.system_fingerprint


def test_stream_carries_the_same_text_as_the_whole_answer(client):
    arguments = dict(model=MODEL_ID, messages=QUESTION, temperature=0, max_tokens=40)
    whole = client.chat.completions.create(**arguments)
    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True},
                                                 **arguments))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage or (
        chunks[-1].usage.completion_tokens == whole.usage.completion_tokens)
    finishes = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert finishes[-1] == whole.choices[0].finish_reason and not any(finishes[:-1])


def test_max_tokens_ends_with_length(client):
    answer = client.chat.completions.create(model=MODEL_ID, messages=QUESTION, max_completion_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


def test_stop_string_is_cut_and_ends_the_answer(client):
    arguments = dict(model=MODEL_ID, prompt="One, two, three, four,", temperature=0, max_tokens=24)
    free = client.completions.create(**arguments).choices[0].text
    stop = free[len(free) // 2:len(free) // 2 + 3]
    answer = client.completions.create(stop=[stop], **arguments).choices[0]
    assert answer.finish_reason == "stop"
    assert answer.text == free[:free.index(stop)]


def test_seed_fixes_a_sampled_answer(client):
    def ask(seed):
        return client.completions.create(model=MODEL_ID, prompt="Once upon a time", max_tokens=24,
                                         temperature=0.9, seed=seed).choices[0].text
    assert ask(7) == ask(7)
    assert len({ask(seed) for seed in range(6)}) > 1


def test_n_choices_are_those_of_the_seed_each(client):
    answer = client.completions.create(model=MODEL_ID, prompt="Once upon a time", max_tokens=16,
                                       temperature=1.0, seed=3, n=4)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in answer.choices}) > 1
    assert answer.usage.completion_tokens <= 64


def test_chat_logprobs_are_sorted_and_agree_with_the_text(client):
    answer = client.chat.completions.create(model=MODEL_ID, messages=QUESTION, temperature=0,
                                            max_tokens=8, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens or answer.choices[0].finish_reason == "stop"
    for token in content:
        assert len(token.top_logprobs) == 3
        values = [top.logprob for top in token.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert token.logprob == values[0] <= 0
        assert token.token == bytes(token.bytes).decode("utf-8", "replace")


def test_echo_with_logprobs_scores_the_prompt(client):
    answer = client.completions.create(model=MODEL_ID, prompt="The capital of France is", echo=True,
                                       logprobs=1, max_tokens=1, temperature=0)
    choice = answer.choices[0]
    assert choice.text.startswith("The capital of France is")
    assert choice.logprobs.token_logprobs[0] is None
    assert all(value < 0 for value in choice.logprobs.token_logprobs[1:])
    assert "".join(choice.logprobs.tokens) == choice.text


def test_token_id_prompts_and_returned_ids_agree_with_text(client):
    ids = client.post("/../tokenize", cast_to=object, body={
        "model": MODEL_ID, "prompt": "The capital of France is"})["tokens"]
    by_ids = client.completions.create(model=MODEL_ID, prompt=ids, max_tokens=6, temperature=0,
                                       extra_body={"return_token_ids": True})
    by_text = client.completions.create(model=MODEL_ID, prompt="The capital of France is",
                                        max_tokens=6, temperature=0)
    assert by_ids.choices[0].text == by_text.choices[0].text
    assert len(by_ids.choices[0].token_ids) == 6
    back = client.post("/../detokenize", cast_to=object, body={
        "model": MODEL_ID, "tokens": by_ids.choices[0].token_ids})
    assert back["prompt"] == by_ids.choices[0].text


def test_ignore_eos_goes_on_to_max_tokens(client):
    answer = client.chat.completions.create(model=MODEL_ID, messages=QUESTION, temperature=0,
                                            max_tokens=80, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 80
    assert answer.choices[0].finish_reason == "length"


def test_unicode_streams_in_whole_characters(client):
    stream = client.completions.create(model=MODEL_ID, prompt="こんにちは 🌍 🎉 🎊 🎁", max_tokens=24,
                                       temperature=0, stream=True)
    text = "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
    json.dumps(text).encode("utf-8")


@pytest.mark.parametrize("change, param", [
    ({"max_tokens": -5}, "max_tokens"),
    ({"temperature": -1}, "temperature"),
    ({"top_p": 1.5}, "top_p"),
    ({"n": 100000}, "n"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"seed": "x"}, "seed"),
    ({"messages": [{"role": "user", "content": "word " * 30000}]}, "messages"),
])
def test_bad_fields_are_refused_by_name(client, change, param):
    body = {"model": MODEL_ID, "messages": QUESTION, **change}
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/chat/completions", cast_to=object, body=body)
    assert refused.value.body["param"] == param


def test_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="nope", messages=QUESTION)
    assert refused.value.body["param"] == "model"
    assert MODEL_ID in refused.value.body["message"]


def test_a_client_that_goes_away_frees_its_place(client, server):
    import time
    import urllib.request
    stream = client.completions.create(model=MODEL_ID, prompt="Tell me a very long story.", stream=True,
                                       max_tokens=1500, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    end = time.monotonic() + 10
    while True:
        page = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
        running = [line for line in page.splitlines() if line.startswith("muselet_sequences_running{")]
        if running and all(line.endswith(" 0") for line in running):
            break
        assert time.monotonic() < end, running
    assert 'outcome="cancelled"} 0' not in [line for line in page.splitlines()
                                            if "muselet_requests_total" in line
                                            and f'model="{MODEL_ID}"' in line
                                            and "cancelled" in line][0]
