#include "ctl/completion.h"

namespace dsm::ctl {

std::string bash_completion(const std::vector<CompletedCommand>& commands) {
  std::string names;
  std::string cases;
  for (const CompletedCommand& command : commands) {
    names += (names.empty() ? "" : " ") + command.name;
    cases += "    " + command.name + ") words='";
    for (const std::string& option : command.options) {
      if (!cases.ends_with('\'')) cases += ' ';
      cases += option;
    }
    cases += "' ;;\n";
  }
  // The command is the first word that is one: options may stand before it.
  return "_dsmctl() {\n"
         "  local word words='" +
         names +
         "'\n"
         "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
         "    case $word in\n" +
         cases +
         "    esac\n"
         "  done\n"
         "  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\")\n"
         "}\n"
         "complete -o default -F _dsmctl dsmctl\n";
}

}  // namespace dsm::ctl
