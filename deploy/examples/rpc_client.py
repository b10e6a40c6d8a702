#!/usr/bin/env python3
"""Streams an answer from a muselet gateway's RPC port.

    pip install pyzmq protobuf            (or: apt install python3-zmq python3-protobuf)
    apt install protobuf-compiler         (protoc, for the generated module)
    deploy/examples/rpc_client.py tcp://127.0.0.1:5556 "What is a muse?"

The wire is one protobuf message a ZeroMQ message, described in comms/proto/frontend.proto. The
module for it is generated at start with protoc; a program of yours would keep the generated file.
"""

import argparse
import importlib
import itertools
import pathlib
import subprocess
import sys
import tempfile
import time

import zmq

PROTO = pathlib.Path(__file__).resolve().parents[2] / "comms" / "proto" / "frontend.proto"
PING_INTERVAL_S = 0.5  # a gateway takes a client that is silent for seconds for gone
SILENCE_MAX_S = 5.0
PING_CALL_ID = 0


def load_protocol(proto: pathlib.Path):
    """The Python module of `proto`, made by protoc in a directory that is removed again."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["protoc", f"--proto_path={proto.parent}", f"--python_out={folder}", str(proto)]
        subprocess.run(command, check=True)
        sys.path.insert(0, folder)
        try:
            return importlib.import_module(proto.stem + "_pb2")
        finally:
            sys.path.remove(folder)


def read_secret_key(path: pathlib.Path) -> bytes:
    """The key of a file of `muselet keys generate`."""
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == "muselet-secret-key":
            return words[1].encode()
    raise ValueError(f"{path} holds no secret key of muselet keys generate")


class RpcError(Exception):
    """A call that failed: `code`, `param` and `retry_after_ms` as the gateway gave them."""

    def __init__(self, code, message, param="", retry_after_ms=0):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.param = param
        self.retry_after_ms = retry_after_ms


class Client:
    """One connection to a gateway; one thread at a time."""

    def __init__(self, endpoint, api_key="", proto=PROTO, server_key="", key_file=""):
        self.pb = load_protocol(pathlib.Path(proto))
        self.api_key = api_key
        self.call_ids = itertools.count(PING_CALL_ID + 1)
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 500)
        if server_key:
            secret = read_secret_key(pathlib.Path(key_file))
            self.socket.curve_publickey = zmq.curve_public(secret)
            self.socket.curve_secretkey = secret
            self.socket.curve_serverkey = server_key.encode()
        self.socket.connect(endpoint)

    def close(self):
        self.socket.close()
        self.context.term()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def generate(self, **fields):
        """Yields GenerateChunks; the last one carries the usage. Leaving the loop early cancels.

        `fields` are those of GenerateRequest; `messages` is a list of (role, content) and `tokens`
        a list of ids.
        """
        request = self.pb.Request(generate=self.pb.GenerateRequest())
        generate = request.generate
        for role, content in fields.pop("messages", []):
            generate.chat.messages.add(role=role, content=content)
        if "tokens" in fields:
            generate.tokens.ids.extend(fields.pop("tokens"))
        for name, value in fields.items():
            if isinstance(value, (list, tuple)):
                getattr(generate, name).extend(value)
            else:
                setattr(generate, name, value)
        call_id = self._send(request)
        ended = False
        try:
            for response in self._responses(call_id):
                ended = response.final
                yield response.chunk
        except RpcError:
            ended = True
            raise
        finally:
            if not ended:
                cancel = self.pb.CancelRequest(generate_call_id=call_id)
                self._send(self.pb.Request(cancel=cancel))

    def models(self):
        return self._call(self.pb.Request(models=self.pb.ModelsRequest())).models.models

    def health(self):
        return self._call(self.pb.Request(health=self.pb.HealthRequest())).health

    def _call(self, request):
        return next(iter(self._responses(self._send(request))))

    def _send(self, request, call_id=None):
        request.version = 1
        request.call_id = next(self.call_ids) if call_id is None else call_id
        request.api_key = self.api_key
        try:
            self.socket.send(request.SerializeToString(), zmq.NOBLOCK)
        except zmq.Again:
            pass  # there is no connection: the silence tells
        return request.call_id

    def _responses(self, call_id):
        heard = pinged = time.monotonic()
        while True:
            now = time.monotonic()
            if now - pinged > PING_INTERVAL_S:
                self._send(self.pb.Request(ping=self.pb.PingRequest()), PING_CALL_ID)
                pinged = now
            if now - heard > SILENCE_MAX_S:
                raise RpcError("unavailable", "the gateway does not answer")
            if not self.socket.poll(int(PING_INTERVAL_S * 1000)):
                continue
            response = self.pb.Response.FromString(self.socket.recv())
            heard = time.monotonic()
            if response.call_id != call_id:
                continue
            if response.HasField("error"):
                error = response.error
                raise RpcError(error.code, error.message, error.param, error.retry_after_ms)
            yield response
            if response.final:
                return


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("endpoint", help="the gateway's rpc address, e.g. tcp://127.0.0.1:5556")
    parser.add_argument("prompt")
    parser.add_argument("--model", default="", help="not needed if the gateway serves one")
    parser.add_argument("--api-key", default="")
    parser.add_argument("--server-key", default="",
                        help="public key of the gateway, where its wires are secured")
    parser.add_argument("--key-file", default="",
                        help="with --server-key: the secret key of this client, a file of "
                        "muselet keys generate whose public key the gateway knows")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--proto", default=PROTO, help="path of frontend.proto")
    options = parser.parse_args()
    try:
        with Client(options.endpoint, options.api_key, options.proto,
                    options.server_key, options.key_file) as client:
            began = time.monotonic()
            for chunk in client.generate(
                messages=[("user", options.prompt)],
                model=options.model,
                max_tokens=options.max_tokens,
                temperature=options.temperature,
            ):
                print(chunk.text, end="", flush=True)
                if chunk.HasField("usage"):
                    tokens = chunk.usage.generation_tokens
                    seconds = max(time.monotonic() - began, 1e-9)
                    print(f"\n[{tokens} tokens, {tokens / seconds:.1f} tokens/s]", file=sys.stderr)
    except RpcError as error:
        print(f"rpc_client: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
