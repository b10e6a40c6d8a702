// `muselet chat`: a conversation with any OpenAI-compatible server. Answers stream to `out`;
// prompts, speeds and faults go to `err`, so that the output of a pipe is the answers alone.
#pragma once

#include "node/cli/cli.h"
#include "node/cli/client_options.h"

namespace muselet {

// Until the input ends or /exit. Exit code 0; 1 if the last question got no answer; 2 if the server
// cannot be reached at the start. Blocks the calling thread.
int RunChat(const ChatOptions& options, const CommandStreams& streams);

}  // namespace muselet
