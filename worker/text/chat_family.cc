// The table of built-in templates.
//
// A template is known by the SHA-256 of its text. The hashes of a row are of texts that Jinja
// renders alike: the text as published, then, since files differ in that, the same with a line feed
// behind it (chat_template.jinja), and both with line feeds inside its strings written the other
// way (as themselves or as \n). The published texts of V2, V3 and the distills were had from files
// whose own hash or origin is known; the others were put together from quotations of them, so a
// checkpoint may come with a revision that is not here. It is then refused with its hash.
#include "worker/text/chat_family.h"

#include <iterator>

#include "worker/text/chat_markers.h"

namespace dsm::text {
namespace {

using namespace markers;

constexpr std::string_view kTinyHashes[] = {
    "f2693897da9e256fb982f28a0d9f8d7c332eb4874fe191d91adeca0c34e36612"};
// deepseek-llm-*-chat, DeepSeek-V2-Chat, DeepSeek-V2-Lite-Chat, DeepSeek-Coder-V2-Instruct.
constexpr std::string_view kV2Hashes[] = {
    "8aeba567270fa9a8d5372caf4b04affea947c4421d96adc01e3ff94021b0ae8e",
    "57d9e6472d2633ffd003ffd19b691d1f56e45d81a101edf656ad6e6cdbdf0992",
    "5b0c475e85b3954175a606f8e7540ec0c6a16edb516e2b8cd0c000dff7b1ad65",
    "39a9ee8b2db8febe1de321e4be8d6a77b65178cbfd099a314f311eca3e6208db",
};
// DeepSeek-V3.
constexpr std::string_view kV3Hashes[] = {
    "3b8267e54b67df6500f231ffa969955cc9d26b3444a291ced4eb96ca7d3ca1ea",
    "ab0ff5420b868930f174d45fd397a10183e6d6603e41851b40b7d35857c111d0",
    "1abb11869cb1ab4f7003d1c40de7c11b046c7844da22a67e6154d29e7d14d994",
    "737c52f0e09aa40e4b40fa07dc4c224a57b49ff0832d169c39e7042470013890",
};
// DeepSeek-V3-0324.
constexpr std::string_view kV30324Hashes[] = {
    "22e97ba043dacf9df1f071a9de9d2bb6b0757491f16e96e810834b86e1641286",
    "68de08379e9d897e978ba860f566193a3578c2a19c5aa85055498d4a92e320ec",
    "86c9eb894f13402f6a30ad06ba7b05d436db0c7e1cc2ba84791a957fb4f6210d",
    "29b62b074bad481834e0cd42c949dafa3563b5f3e43eec99f2e5930935a9258f",
};
// DeepSeek-R1 and the distills of January 2025.
constexpr std::string_view kR1FirstHashes[] = {
    "b6835114b7303ddd78919a82e4d9f7d8c26ed0d7dfc36beeb12d524f6144eab1",
    "c2a05c60f6f8c0c89c44858a7d23d2cfa21fb8f9cf179f04c82cac6dd0ec59ac",
    "1546232b56f9c33a5d7fcdc270b0014d67dff9c3df06737f091a4a7dee729c3a",
    "a1450d0debeab14197736deee1c8f21cfbef5a331e26e715c13b42ded8434181",
};
// DeepSeek-R1-Distill-Qwen-* and -Llama-* since February 2025.
constexpr std::string_view kR1DistillHashes[] = {
    "56a1447ad31926fdc21fb07e56e5642bd9c850c4f52d8c8af7bbe5f079a84f5f",
    "7a7c50341f667efa290ca4f891b118437bba2b6e68ea5d605bd765fd6907bf13",
    "795ba6276beff6e84e75213f77a7e7fff71b6c587618a6ed43c1f90c2ad2334a",
    "93d9aeddfc182f8e01af3d0656bffe3d6731e911d4953e5a18486b2134652948",
};
// DeepSeek-R1 since February 2025.
constexpr std::string_view kR1Hashes[] = {
    "563b1ce7d61d50a9b4c7439a912a1116f095b712df5b5e4d3e1116049874eb64",
    "eaddd0479d1255cb95390f484e7ec6dcf6eac1a594afb1b584d0e53b50e471ca",
    "5b7a90c17faa4288745d78ec7097e9a571a3bb7cddc0ab0282d552bd63c7fb51",
    "c8c340b4c8c09bb4f45a3611ee4768e050da6145beaf73f64488c1779d40a5f8",
};
// DeepSeek-R1-0528; the second group also takes arguments that are not yet text.
constexpr std::string_view kR10528Hashes[] = {
    "53671bac29bcb3e1f95f51b8c77d85a6011b66dc38bd23dce64eef04384a976b",
    "84ca41e72f720be3e11ca2bea15b33fe1a6254df3f2394f5675b73ec8c2edade",
    "f04e2c07c639ea5fb4d3ce97d23b64236bf28b2a7b28a280e41176abf393f5fb",
    "c99d08cc543f56d5ea69153dd90fe28e5ceea56eb42d3a373eac6fbd36352ab7",
    "b09729d9fc8b07a913e8cbba62bb3ac3618943b516d9fabccdaecc1be0825241",
    "0a70dc0a0d1751376120ca0fbcc029c0c5af620b4fe67acc69d164a4f93cb547",
    "4cd626e475c477f888bd441112e2a84d5f1948b7ba7d228e5977df2fd7d54b2d",
    "322010ec57e94b3241d56a5627b709ff96c93e901238ab93e652fd4a4be8e6f9",
};
// DeepSeek-V3.1.
constexpr std::string_view kV31Hashes[] = {
    "45690185067ea25c073bff2d3e425a45ee2564d2bbf6cdf7d885e139d460b8e0",
    "9bb428ab3b8a81649369c03052fab97934e413193eeed841a5db749801b4af51",
    "37cabd20b2b62e3efe7fa55533ef0bc6e1eae63b60cf77265b2a09632aa1358d",
    "58b6a4434573bb5850a22052e77334dcd8897dc8460ff091391dcc389d80a2a3",
};
// DeepSeek-V3.1-Terminus.
constexpr std::string_view kV31TerminusHashes[] = {
    "6e50812c1ed791d81930e675021f2524b075f5f23558305b7eef5c030b4c61f2",
    "15e5b65fcf319135a0357be89ff307c6520e075a347a77bd27bb2a13a422eaa1",
    "53163748371ddd5efad7a4cb7d977cccab8f95c85b8b3a65d2c2c00527613051",
    "c2bef671e40ac89b1301e97c46f0d8e6621cd9d24acde8d311b7e32b376fba32",
};

constexpr std::string_view kEnds[] = {kBos, kEos};
constexpr std::string_view kTurns[] = {kBos, kEos, kUser, kAssistant};
constexpr std::string_view kTurnsAndThought[] = {kBos,       kEos,       kUser,
                                                 kAssistant, kThinkOpen, kThinkClose};
constexpr ChatFamily kFamilies[] = {
    {"deepseek-tiny", kTinyHashes, kTurnsAndThought, ToolFormat::kNone, Thinking::kSwitched,
     write_tiny},
    {"deepseek-v2", kV2Hashes, kEnds, ToolFormat::kNone, Thinking::kNever, write_v2},
    {"deepseek-v3", kV3Hashes, kTurns, ToolFormat::kTyped, Thinking::kNever, write_v3},
    {"deepseek-v3-0324", kV30324Hashes, kTurns, ToolFormat::kTyped, Thinking::kNever,
     write_v3_0324},
    {"deepseek-r1-2025-01", kR1FirstHashes, kTurns, ToolFormat::kTyped, Thinking::kAlways,
     write_r1_first},
    {"deepseek-r1-distill", kR1DistillHashes, kTurns, ToolFormat::kTyped, Thinking::kAlways,
     write_r1_distill},
    {"deepseek-r1", kR1Hashes, kTurns, ToolFormat::kTyped, Thinking::kAlways, write_r1},
    {"deepseek-r1-0528", kR10528Hashes, kTurns, ToolFormat::kTyped, Thinking::kAlways,
     write_r1_0528},
    {"deepseek-v3.1", kV31Hashes, kTurns, ToolFormat::kNamed, Thinking::kSwitched, write_v31},
    {"deepseek-v3.1-terminus", kV31TerminusHashes, kTurns, ToolFormat::kNamed, Thinking::kSwitched,
     write_v31_terminus},
    {"deepseek-v3.2", {}, kTurnsAndThought, ToolFormat::kDsml, Thinking::kSwitched, write_v32},
};

}  // namespace

std::span<const ChatFamily> chat_families() {
  return kFamilies;
}

std::string_view without_thought(std::string_view content, bool first) {
  const std::size_t at = first ? content.find(kThinkClose) : content.rfind(kThinkClose);
  return at == std::string_view::npos ? content : content.substr(at + kThinkClose.size());
}

}  // namespace dsm::text
