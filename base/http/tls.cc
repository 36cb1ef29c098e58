#include "base/http/tls.h"

#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <boost/asio/buffer.hpp>

#include "base/http/tls_context.h"

namespace dsm::http {
namespace {

using boost::system::error_code;
namespace ssl = boost::asio::ssl;

void append_pem(X509* certificate, std::string& out) {
  const std::unique_ptr<BIO, int (*)(BIO*)> bio(BIO_new(BIO_s_mem()), BIO_free);
  if (!bio || PEM_write_bio_X509(bio.get(), certificate) != 1) return;
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  out.append(text, static_cast<std::size_t>(size));
}

}  // namespace

Status Tls::use(const std::string& certificates, const std::string& key) {
  auto context = std::make_shared<Context>();
  SSL_CTX* native = context->ssl.native_handle();
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  // Whoever shows a certificate shows it in each handshake: nothing is resumed.
  SSL_CTX_set_options(native, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_num_tickets(native, 0);
  SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_verify(native, SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_cert_verify_callback(native, [](X509_STORE_CTX*, void*) { return 1; }, nullptr);
  error_code ec;
  context->ssl.use_certificate_chain(boost::asio::buffer(certificates), ec);
  if (ec) return fail(ErrorKind::kInvalid, "the certificate: " + ec.message());
  context->ssl.use_private_key(boost::asio::buffer(key), ssl::context::pem, ec);
  if (ec) return fail(ErrorKind::kInvalid, "the certificate's key: " + ec.message());
  const std::lock_guard lock(mutex_);
  context_ = std::move(context);
  return {};
}

std::shared_ptr<Tls::Context> Tls::context() const {
  const std::lock_guard lock(mutex_);
  return context_;
}

std::string peer_certificates(SSL* ssl) {
  const std::unique_ptr<X509, void (*)(X509*)> own(SSL_get1_peer_certificate(ssl), X509_free);
  if (!own) return {};
  std::string out;
  append_pem(own.get(), out);
  const STACK_OF(X509)* more = SSL_get_peer_cert_chain(ssl);
  for (int i = 0; more != nullptr && i < sk_X509_num(more); ++i) {
    append_pem(sk_X509_value(more, i), out);
  }
  return out;
}

}  // namespace dsm::http
