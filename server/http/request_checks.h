// What a request must be before its body is read; errors are ApiError.
#pragma once

#include <httplib.h>

#include <cstddef>
#include <string>
#include <vector>

#include "server/api/error.h"
#include "server/http/connection.h"

namespace qnpu::server {

// An empty key is none. The time that a comparison takes does not tell what is right of a key.
void check_key(const httplib::Request& request, const std::string& key);

// None of the names (hosts.h): a page of another site, whose name was made to mean this machine,
// could ask and read the answers. Browsers always send a Host; a request without one is good.
void check_host(const httplib::Request& request, const std::vector<std::string>& names);

// JSON, whose length is stated once and is no more than `most_bytes`. What could mean one thing to
// this server and another to one in front of it is refused.
void check_body(const httplib::Request& request, size_t most_bytes);
// Of methods that take none: what is not read would be taken for the next request.
void check_no_body(const httplib::Request& request);

// What to say of an error that httplib or the connection found.
ApiError protocol_error(int status, Connection::Trouble trouble);

}  // namespace qnpu::server
