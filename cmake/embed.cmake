# Text files as constants of a C++ source. qnpu_embed adds them to a target:
#
#   qnpu_embed(TARGET HEADER NAME FILE... [NAME FILE...])
#
# HEADER declares `extern const std::string_view NAME`; several files after one NAME are joined. What
# follows `cmake -P` below is the same script, run when a file has changed.
if(CMAKE_SCRIPT_MODE_FILE)
  set(text "#include \"${HEADER}\"\n\nnamespace qnpu {\n")
  string(REPLACE "|" ";" items "${ITEMS}")
  set(open FALSE)
  foreach(item ${items})
    if(item MATCHES "^k[A-Za-z]+$")
      if(open)
        string(APPEND text ";\n")
      endif()
      string(APPEND text "\nconst std::string_view ${item} =")
      set(open TRUE)
    else()
      file(READ "${item}" content)
      string(APPEND text "\n    R\"qnpu!(${content})qnpu!\"")
    endif()
  endforeach()
  file(WRITE "${OUT}" "${text};\n\n}  // namespace qnpu\n")
  return()
endif()

function(qnpu_embed target header)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/${target}_assets.cc)
  set(files ${ARGN})
  list(FILTER files EXCLUDE REGEX "^k[A-Za-z]+$")
  list(JOIN ARGN "|" items)
  add_custom_command(OUTPUT ${out}
    COMMAND ${CMAKE_COMMAND} -DHEADER=${header} "-DITEMS=${items}" -DOUT=${out}
      -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    DEPENDS ${files} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake VERBATIM)
  target_sources(${target} PRIVATE ${out})
endfunction()
