# How every folder of the project is built: the sources in it make a library, each `*_test.cc` in it
# is found by itself and joins the folder's one test program. Nothing is listed by hand, so no test
# can be forgotten.
include(GoogleTest)

add_library(qnpu_flags INTERFACE)
target_include_directories(qnpu_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(qnpu_flags INTERFACE -Wall -Wextra -Wno-sign-compare
  # Integer kernels are plain loops: let the compiler vectorise them, and never contract floats.
  -ffp-contract=off)
if(QNPU_ASSERT)
  target_compile_options(qnpu_flags INTERFACE -UNDEBUG)
endif()
if(QNPU_SANITIZE)
  target_compile_options(qnpu_flags INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(qnpu_flags INTERFACE -fsanitize=address,undefined)
endif()

# The instruction set is the last word of a file's name: matmul_u8s8_s32_avx2.cc.
set(QNPU_ISA_avx2 -mavx2 -mfma)
set(QNPU_ISA_avx512vnni -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
  # g++ 12 warns about its own header's _mm512_undefined_epi32.
  -Wno-uninitialized -Wno-maybe-uninitialized)
set(QNPU_ISA_amxint8 ${QNPU_ISA_avx512vnni} -mamx-tile -mamx-int8)

function(qnpu_isa_flags)
  foreach(source ${ARGN})
    foreach(isa avx2 avx512vnni amxint8)
      if(source MATCHES "_${isa}\\.cc$")
        set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${QNPU_ISA_${isa}}")
      endif()
    endforeach()
  endforeach()
endfunction()

# Test program of the sources given: GoogleTest + CTest. `*_model_test.cc` needs the real model and
# gets the label `model`; every other one is `unit`.
function(qnpu_tests name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBRARIES" ${ARGN})
  foreach(label unit model)
    set(sources ${ARG_SOURCES})
    if(label STREQUAL model)
      list(FILTER sources INCLUDE REGEX "_model_test\\.cc$")
    else()
      list(FILTER sources EXCLUDE REGEX "_model_test\\.cc$")
    endif()
    if(sources)
      set(program ${name}_${label}_test)
      add_executable(${program} ${sources})
      target_link_libraries(${program} PRIVATE ${ARG_LIBRARIES} qnpu_flags GTest::gmock GTest::gtest_main
        rapidcheck)
      target_compile_definitions(${program} PRIVATE QNPU_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
      # Spinning OpenMP threads would hold up the tests that run beside these.
      set(properties LABELS ${label} TIMEOUT 900 ENVIRONMENT OMP_WAIT_POLICY=passive)
      if(label STREQUAL unit AND "${ARG_LIBRARIES}" MATCHES qnpu_quant)
        # Loading libtorch takes half a second: one process for all tests of such a program.
        add_test(NAME ${program} COMMAND ${program})
        set_tests_properties(${program} PROPERTIES ${properties})
      else()
        gtest_discover_tests(${program} DISCOVERY_MODE PRE_TEST PROPERTIES ${properties})
      endif()
    endif()
  endforeach()
endfunction()

function(qnpu_folder name)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${name}/*.cc)
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  qnpu_isa_flags(${sources})
  set(libraries)
  foreach(library ${ARGN})
    if(TARGET qnpu_${library})
      list(APPEND libraries qnpu_${library})
    else()
      list(APPEND libraries ${library})
    endif()
  endforeach()
  add_library(qnpu_${name} STATIC ${sources})
  target_link_libraries(qnpu_${name} PUBLIC ${libraries} PRIVATE qnpu_flags)
  target_include_directories(qnpu_${name} PUBLIC ${PROJECT_SOURCE_DIR})
  if(tests AND NOT QNPU_PYTHON)
    qnpu_tests(${name} SOURCES ${tests} LIBRARIES qnpu_${name})
  endif()
endfunction()
