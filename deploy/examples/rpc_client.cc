// Streams an answer from a muselet gateway's RPC port.
//
//   cmake --install build --component client --prefix /usr/local
//   g++ -std=c++17 rpc_client.cc -lmuselet_client -lmuselet_proto -lprotobuf-lite -lzmq -o
//   rpc_client
//   ./rpc_client tcp://127.0.0.1:5556 "What is a muse?"
#include <muselet/muselet_client.h>

#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s ENDPOINT PROMPT [API_KEY]\n", argv[0]);
    return 2;
  }
  muselet::client::Options options;
  if (argc > 3) options.api_key = argv[3];
  muselet::client::Client client(argv[1], options);
  muselet::client::Request request;
  request.messages = {{"user", argv[2]}};
  request.max_tokens = 128;
  request.temperature = 0.0F;
  const auto answer = client.Generate(request, [](const muselet::client::Chunk& chunk) {
    std::fputs(chunk.text.c_str(), stdout);
    std::fflush(stdout);
    return true;
  });
  std::puts("");
  if (!answer.error.ok()) {
    std::fprintf(stderr, "rpc_client: %s: %s\n", answer.error.code.c_str(),
                 answer.error.message.c_str());
    return EXIT_FAILURE;
  }
  std::fprintf(stderr, "[%u tokens]\n", answer.usage.generation_tokens);
  return EXIT_SUCCESS;
}
