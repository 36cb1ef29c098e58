// For each pattern given, one line with a character per code point: 1 when PCRE2 matches it alone, else 0.
// A helper of make_unicode_additions.py; not part of the build.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>

static int encode(unsigned u, unsigned char* b) {
  if (u < 0x80) return b[0] = (unsigned char)u, 1;
  if (u < 0x800) return b[0] = 0xC0 | u >> 6, b[1] = 0x80 | (u & 63), 2;
  if (u < 0x10000) return b[0] = 0xE0 | u >> 12, b[1] = 0x80 | (u >> 6 & 63), b[2] = 0x80 | (u & 63), 3;
  return b[0] = 0xF0 | u >> 18, b[1] = 0x80 | (u >> 12 & 63), b[2] = 0x80 | (u >> 6 & 63), b[3] = 0x80 | (u & 63), 4;
}

int main(int argc, char** argv) {
  for (int p = 1; p < argc; p++) {
    int error;
    PCRE2_SIZE where;
    pcre2_code* code = pcre2_compile((PCRE2_SPTR)argv[p], PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &where, NULL);
    if (!code) return 1;
    pcre2_match_data* data = pcre2_match_data_create(1, NULL);
    for (unsigned u = 0; u < 0x110000; u++) {
      unsigned char b[4];
      if (u >= 0xD800 && u < 0xE000) {
        putchar('-');
      } else {
        int n = encode(u, b);
        putchar(pcre2_match(code, b, (PCRE2_SIZE)n, 0, 0, data, NULL) >= 0 ? '1' : '0');
      }
    }
    putchar('\n');
    pcre2_match_data_free(data);
    pcre2_code_free(code);
  }
  return 0;
}
