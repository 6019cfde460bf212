// The files that the page is made of, compiled in (cmake/embed.cmake): an installed program needs
// none of them.
#pragma once

#include <string_view>

namespace qnpu {

extern const std::string_view kReportPage;     // page.html
extern const std::string_view kReportStyle;    // page.css
extern const std::string_view kReportScripts;  // the .js files of this folder, one after another
extern const std::string_view kReportLibrary;  // D3
extern const std::string_view kReportNotice;   // its copyright notice and licence

}  // namespace qnpu
