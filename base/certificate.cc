#include "base/certificate.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstring>  // EVP_EC_gen is a macro that needs it
#include <ctime>
#include <memory>

namespace dsm {
namespace {

template <typename T, void (*Free)(T*)>
struct Freer {
  void operator()(T* value) const { Free(value); }
};
using Certificate = std::unique_ptr<X509, Freer<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY, EVP_PKEY_free>>;
using Number = std::unique_ptr<BIGNUM, Freer<BIGNUM, BN_free>>;
using Store = std::unique_ptr<X509_STORE, Freer<X509_STORE, X509_STORE_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, Freer<X509_STORE_CTX, X509_STORE_CTX_free>>;
struct BioFreer {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using Bio = std::unique_ptr<BIO, BioFreer>;
struct StackFreer {
  void operator()(STACK_OF(X509) * stack) const { sk_X509_pop_free(stack, X509_free); }
};
using Stack = std::unique_ptr<STACK_OF(X509), StackFreer>;

constexpr int kVersion3 = 2;  // counted from 0
constexpr int kSerialBits = 127;
// Of a chain that somebody shows, and of authorities that are trusted; more are not looked at.
constexpr std::size_t kLongestChain = 10;
constexpr std::size_t kMostAuthorities = 100;

std::unexpected<Error> openssl_error(const std::string& what) {
  const unsigned long code = ERR_get_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  ERR_clear_error();
  return fail(ErrorKind::kInternal, what + ": " + (reason == nullptr ? "OpenSSL failed" : reason));
}

Bio text_bio(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<std::size_t>(size));
}

std::vector<Certificate> read_certificates(const std::string& text,
                                           std::size_t most = kLongestChain) {
  std::vector<Certificate> out;
  const Bio bio = text_bio(text);
  while (bio && out.size() < most) {
    Certificate one(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (!one) break;
    out.push_back(std::move(one));
  }
  ERR_clear_error();  // the end of the text is one
  return out;
}

bool set_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context{};
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  if (extension == nullptr) return false;
  const bool added = X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return added;
}

bool set_serial(X509* certificate) {
  const Number number(BN_new());
  return number && BN_rand(number.get(), kSerialBits, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
         BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

bool add_to_name(X509* certificate, const char* field, const std::string& value) {
  X509_NAME* name = X509_get_subject_name(certificate);
  return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8,
                                    reinterpret_cast<const unsigned char*>(value.data()),
                                    static_cast<int>(value.size()), -1, 0) == 1;
}

// Everything that an authority and a leaf have in common; without extensions and signature.
Certificate blank(const std::string& common_name, EVP_PKEY* key, WallTime from, WallTime until) {
  Certificate certificate(X509_new());
  const bool ok = certificate && X509_set_version(certificate.get(), kVersion3) == 1 &&
                  set_serial(certificate.get()) &&
                  (common_name.empty() || add_to_name(certificate.get(), "CN", common_name)) &&
                  ASN1_TIME_set(X509_getm_notBefore(certificate.get()),
                                std::chrono::system_clock::to_time_t(from)) != nullptr &&
                  ASN1_TIME_set(X509_getm_notAfter(certificate.get()),
                                std::chrono::system_clock::to_time_t(until)) != nullptr &&
                  X509_set_pubkey(certificate.get(), key) == 1;
  return ok ? std::move(certificate) : nullptr;
}

Result<KeyPair> signed_pair(X509* certificate, EVP_PKEY* key, EVP_PKEY* signer) {
  if (X509_sign(certificate, signer, EVP_sha256()) == 0) return openssl_error("sign a certificate");
  const Bio certificate_text(BIO_new(BIO_s_mem()));
  const Bio key_text(BIO_new(BIO_s_mem()));
  if (!certificate_text || !key_text ||
      PEM_write_bio_X509(certificate_text.get(), certificate) != 1 ||
      PEM_write_bio_PrivateKey(key_text.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    return openssl_error("write a certificate");
  }
  return KeyPair{text_of(certificate_text.get()), text_of(key_text.get())};
}

WallTime time_of(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return {};
  return std::chrono::system_clock::from_time_t(timegm(&parts));
}

// A field of the subject, in order; "" for what is no text.
std::vector<std::string> texts_of(X509* certificate, int nid) {
  std::vector<std::string> out;
  X509_NAME* name = X509_get_subject_name(certificate);
  for (int at = -1; (at = X509_NAME_get_index_by_NID(name, nid, at)) >= 0;) {
    std::string& one = out.emplace_back();
    unsigned char* text = nullptr;
    const int size =
        ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    if (size < 0) continue;
    one.assign(reinterpret_cast<const char*>(text), static_cast<std::size_t>(size));
    OPENSSL_free(text);
  }
  ERR_clear_error();
  return out;
}

std::vector<std::string> dns_names_of(X509* certificate) {
  std::vector<std::string> out;
  auto* names = static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
    if (name->type != GEN_DNS) continue;
    out.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName)),
                     static_cast<std::size_t>(ASN1_STRING_length(name->d.dNSName)));
  }
  GENERAL_NAMES_free(names);
  return out;
}

}  // namespace

Result<KeyPair> make_authority(const std::string& common_name, WallTime from, WallTime until) {
  const Key key(EVP_EC_gen("P-256"));
  if (!key) return openssl_error("make a key");
  const Certificate made = blank(common_name, key.get(), from, until);
  if (!made || X509_set_issuer_name(made.get(), X509_get_subject_name(made.get())) != 1 ||
      !set_extension(made.get(), made.get(), NID_basic_constraints, "critical,CA:TRUE") ||
      !set_extension(made.get(), made.get(), NID_key_usage, "critical,keyCertSign,cRLSign") ||
      !set_extension(made.get(), made.get(), NID_subject_key_identifier, "hash")) {
    return openssl_error("make an authority");
  }
  return signed_pair(made.get(), key.get(), key.get());
}

Result<KeyPair> make_leaf(const KeyPair& authority, const LeafRequest& request) {
  const std::vector<Certificate> issuers = read_certificates(authority.certificate);
  const Bio key_text = text_bio(authority.key);
  const Key signer(PEM_read_bio_PrivateKey(key_text.get(), nullptr, nullptr, nullptr));
  if (issuers.empty() || !signer) return openssl_error("read the authority");
  X509* issuer = issuers.front().get();
  const Key key(EVP_EC_gen("P-256"));
  if (!key) return openssl_error("make a key");
  const Certificate made = blank(request.common_name, key.get(), request.from, request.until);
  const bool server = request.use == LeafRequest::Use::kServer;
  bool named = made != nullptr;
  for (const std::string& one : request.organizations)
    named = named && add_to_name(made.get(), "O", one);
  if (!named || X509_set_issuer_name(made.get(), X509_get_subject_name(issuer)) != 1 ||
      !set_extension(made.get(), issuer, NID_basic_constraints, "critical,CA:FALSE") ||
      !set_extension(made.get(), issuer, NID_key_usage, "critical,digitalSignature") ||
      !set_extension(made.get(), issuer, NID_ext_key_usage, server ? "serverAuth" : "clientAuth") ||
      !set_extension(made.get(), issuer, NID_authority_key_identifier, "keyid")) {
    return openssl_error("make a certificate");
  }
  std::string names;
  for (const std::string& name : request.dns_names)
    names += (names.empty() ? "DNS:" : ",DNS:") + name;
  if (!names.empty() && !set_extension(made.get(), issuer, NID_subject_alt_name, names)) {
    return openssl_error("name a certificate");
  }
  return signed_pair(made.get(), key.get(), signer.get());
}

Result<CertificateFacts> certificate_facts(const std::string& certificates) {
  const std::vector<Certificate> read = read_certificates(certificates);
  if (read.empty()) return fail(ErrorKind::kInvalid, "there is no certificate in PEM");
  X509* first = read.front().get();
  CertificateFacts facts;
  if (const auto names = texts_of(first, NID_commonName); !names.empty()) {
    facts.common_name = names.back();
  }
  facts.organizations = texts_of(first, NID_organizationName);
  facts.dns_names = dns_names_of(first);
  facts.from = time_of(X509_get0_notBefore(first));
  facts.until = time_of(X509_get0_notAfter(first));
  return facts;
}

Status check_client(const std::string& certificates, const std::string& authorities, WallTime now) {
  const std::vector<Certificate> shown = read_certificates(certificates);
  if (shown.empty()) return fail(ErrorKind::kDenied, "the client shows no certificate");
  const std::vector<Certificate> trusted = read_certificates(authorities, kMostAuthorities);
  if (trusted.empty())
    return fail(ErrorKind::kInvalid, "no authority of client certificates is known");
  const Store store(X509_STORE_new());
  const StoreContext context(X509_STORE_CTX_new());
  const Stack others(sk_X509_new_null());
  bool ok = store && context && others;
  for (const Certificate& one : trusted)
    ok = ok && X509_STORE_add_cert(store.get(), one.get()) == 1;
  for (std::size_t i = 1; ok && i < shown.size(); ++i) {
    ok = X509_up_ref(shown[i].get()) == 1 && sk_X509_push(others.get(), shown[i].get()) > 0;
  }
  if (!ok ||
      X509_STORE_CTX_init(context.get(), store.get(), shown.front().get(), others.get()) != 1) {
    return openssl_error("check a certificate");
  }
  X509_STORE_CTX_set_purpose(context.get(), X509_PURPOSE_SSL_CLIENT);
  X509_STORE_CTX_set_time(context.get(), 0, std::chrono::system_clock::to_time_t(now));
  const bool good = X509_verify_cert(context.get()) == 1;
  ERR_clear_error();
  if (good) return {};
  const int why = X509_STORE_CTX_get_error(context.get());
  return fail(ErrorKind::kDenied, std::string("the client's certificate is not accepted: ") +
                                      X509_verify_cert_error_string(why));
}

}  // namespace dsm
