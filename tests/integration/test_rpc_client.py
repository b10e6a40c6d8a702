"""The front-end RPC of a running server, through the example that operators are given."""
import importlib.util

import pytest

from conftest import MODEL_ID, ROOT, Server, free_port, serve_config


def load_example():
    path = ROOT / "deploy" / "examples" / "rpc_client.py"
    spec = importlib.util.spec_from_file_location("rpc_client", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rpc_client = load_example()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    address = f"tcp://127.0.0.1:{free_port()}"
    gateways = [{"name": "g0", "http": "127.0.0.1:0", "rpc": address}]
    config = serve_config(tmp_path_factory.mktemp("rpc") / "config.yaml", gateways=gateways)
    running = Server("--config", config)
    yield address
    assert running.stop() == 0


@pytest.fixture
def client(endpoint):
    with rpc_client.Client(endpoint) as connected:
        yield connected


def test_streams_a_chat(client):
    chunks = list(client.generate(messages=[("user", "What is 2+2?")],
                                  max_tokens=12, temperature=0.0))
    assert len(chunks) > 4
    text = "".join(chunk.text for chunk in chunks)
    assert "4" in text
    usage = chunks[-1].usage
    ids = [token.id for chunk in chunks for token in chunk.tokens]
    assert usage.generation_tokens == len(ids)
    assert usage.prompt_tokens > 0


def test_the_same_seed_gives_the_same_tokens_again(client):
    def ids(**prompt):
        chunks = client.generate(**prompt, max_tokens=8, temperature=0.8, seed=7, ignore_eos=True)
        return [token.id for chunk in chunks for token in chunk.tokens]

    first = ids(text="Once upon a time")
    assert len(first) == 8
    assert ids(text="Once upon a time") == first


def test_lists_models_and_health(client):
    models = client.models()
    assert [model.id for model in models] == [MODEL_ID]
    assert models[0].replicas_ready == 1
    assert client.health().ready


def test_a_fault_names_its_field(client):
    with pytest.raises(rpc_client.RpcError) as fault:
        list(client.generate(text="hi", temperature=-1.0))
    assert fault.value.code == "invalid_argument"
    assert fault.value.param == "temperature"


def test_leaving_the_stream_early_frees_the_server(client):
    for chunk in client.generate(text="Count:", max_tokens=1000, ignore_eos=True):
        if chunk.tokens:
            break
    chunks = list(client.generate(text="Hello", max_tokens=4, ignore_eos=True))
    assert chunks[-1].usage.generation_tokens == 4
