// How an answer looks to the client: each API that we speak has its writer, and a Generation drives
// any of them without knowing which.
//
//   whole answer:  refusal()  or  whole()
//   stream:        refusal()  or  open() delta()* ( close() | error() ),  keep_alive() in between
//
// Every call of a stream gives the bytes to send, whole events or nothing. A writer belongs to one
// request and remembers what it has sent; calls come one at a time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/http/message.h"
#include "worker/server/api_error.h"
#include "worker/server/api_response.h"
#include "worker/text/tokenizer.h"

namespace dsm::server {

class AnswerWriter {
 public:
  virtual ~AnswerWriter() = default;

  virtual std::string whole(const std::vector<Choice>& choices, const Usage& usage) = 0;

  // Before the first delta; `so_far` has the prompt's numbers.
  virtual std::string open(const Usage& so_far) = 0;
  virtual std::string delta(const ChoiceDelta& delta, const Usage& so_far) = 0;
  // After the last choice ended.
  virtual std::string close(const Usage& usage) = 0;
  // A failure in mid-stream; nothing comes after it.
  virtual std::string error(const ApiError& error) = 0;
  // What shows that a stream with nothing to say is alive; may come before open().
  virtual std::string keep_alive() { return kSseComment; }

  // A failure before anything was sent.
  virtual http::Response refusal(const ApiError& error) const { return error_response(error); }
  // Media types of both forms.
  virtual const char* whole_type() const { return "application/json"; }
  virtual const char* stream_type() const { return "text/event-stream; charset=utf-8"; }
};

// What the writers need to know. `tokenizer` outlives them.
struct AnswerForm {
  AnswerHead head;
  bool include_usage = false;     // a last chunk with the usage, and `usage: null` in the others
  bool continuous_usage = false;  // the usage so far in every chunk
  bool logprobs = false;          // were asked for, so they are there even when empty
  // The thought also as `reasoning`, the name that other servers give it.
  bool reasoning_alias = false;
};

std::unique_ptr<AnswerWriter> make_chat_writer(AnswerForm form, const text::Tokenizer& tokenizer);
std::unique_ptr<AnswerWriter> make_completion_writer(AnswerForm form,
                                                     const text::Tokenizer& tokenizer);
// OpenAI's Responses. `echo` is a JSON object: the fields of the request that every response object
// repeats.
std::unique_ptr<AnswerWriter> make_responses_writer(AnswerHead head, const std::string& echo);
// Anthropic's Messages.
std::unique_ptr<AnswerWriter> make_messages_writer(AnswerHead head, std::string request_id);
// POST /v1/inference: a text and how it ended.
std::unique_ptr<AnswerWriter> make_inference_writer(AnswerHead head);

// An error in the shape of Anthropic's API.
std::string messages_error_json(const ApiError& error, const std::string& request_id);
http::Response messages_error_response(const ApiError& error, const std::string& request_id);

}  // namespace dsm::server
