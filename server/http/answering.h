// One answer over HTTP: as a whole, or as a stream of events while it comes.
#pragma once

#include <httplib.h>

#include <memory>

#include "server/service.h"

namespace qnpu::server {

// Fills the response. Waits for the answer unless the request wants a stream; a client that goes
// away meanwhile frees its slots. Error (ApiError): 504 if the time ran out, 503 while stopping,
// 500.
void answer_completion(Service& service, const AnswerRequest& request, Job job, bool is_chat,
                       httplib::Response& response);

}  // namespace qnpu::server
