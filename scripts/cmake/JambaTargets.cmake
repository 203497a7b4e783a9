# How jamba's libraries, programs and tests are declared.

add_library(jamba_flags INTERFACE)
target_include_directories(jamba_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(
  jamba_flags INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion;-Wno-sign-conversion>")
if(JAMBA_WERROR)
  target_compile_options(jamba_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>
                                               $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
endif()
if(JAMBA_SANITIZE)
  target_compile_options(jamba_flags INTERFACE -fsanitize=${JAMBA_SANITIZE}
                                               -fno-omit-frame-pointer)
  target_link_options(jamba_flags INTERFACE -fsanitize=${JAMBA_SANITIZE})
endif()

# jamba_add_library(NAME SOURCES a.cc ... [PUBLIC libs that its headers need] [PRIVATE libs])
function(jamba_add_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC jamba_flags ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE})
endfunction()

# jamba_add_test(NAME SOURCES a.cc ... [LIBS libs] [LABELS unit]): one GoogleTest program, one
# ctest entry. Labels: unit, ranks, oracle, slow; cuda, emulated, checked: operations on such a device.
function(jamba_add_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS;LABELS" ${ARGN})
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} jamba_test_support GTest::gmock
                                        GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 600)
endfunction()

# jamba_add_op_test(NAME SOURCES a.cc ... [LIBS libs]): a test of operations, which runs on
# test::device(). With JAMBA_CUDA=EMULATED the same objects are linked twice more.
function(jamba_add_op_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
  add_library(${name}_objects OBJECT ${ARG_SOURCES})
  target_link_libraries(${name}_objects PRIVATE ${ARG_LIBS} jamba_test_support GTest::gmock)
  jamba_add_test(${name} SOURCES $<TARGET_OBJECTS:${name}_objects> LIBS ${ARG_LIBS})
  if(JAMBA_CUDA STREQUAL "ON")
    jamba_use_cuda(${name})
    set_tests_properties(${name} PROPERTIES LABELS cuda)
  elseif(JAMBA_CUDA STREQUAL "EMULATED")
    foreach(variant emulated checked)
      jamba_add_test(${name}_${variant} SOURCES $<TARGET_OBJECTS:${name}_objects>
                     LIBS ${ARG_LIBS} LABELS ${variant})
      jamba_use_cuda(${name}_${variant} ${variant})
    endforeach()
  endif()
endfunction()

# jamba_add_cuda_test(NAME SOURCES a.cc ... [LIBS libs]): a test of what only the CUDA backend has; on a
# device, or with JAMBA_CUDA=EMULATED twice on the emulated one.
function(jamba_add_cuda_test name)
  if(JAMBA_CUDA STREQUAL "ON")
    jamba_add_test(${name} ${ARGN} LABELS cuda)
    jamba_use_cuda(${name})
  elseif(JAMBA_CUDA STREQUAL "EMULATED")
    foreach(variant emulated checked)
      jamba_add_test(${name}_${variant} ${ARGN} LABELS ${variant})
      jamba_use_cuda(${name}_${variant} ${variant})
    endforeach()
  endif()
endfunction()

# For tests that meet the leaks of Open MPI or HDF5; leaks of our own still fail them.
set(JAMBA_LEAKS_OF_OTHERS
    LSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/support/lsan.supp:print_suppressions=0
    ASAN_OPTIONS=fast_unwind_on_malloc=0)

# jamba_add_mpi_test(NAME RANKS 1 2 4 SOURCES a.cc ... [LIBS libs]): the same program under
# scripts/launch, one ctest entry a number of ranks. tests/support/mpi_main.cc is its main.
function(jamba_add_mpi_test name)
  cmake_parse_arguments(ARG "" "" "RANKS;SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} jamba_mpi_test_main jamba_test_support
                                        GTest::gmock GTest::gtest)
  foreach(ranks ${ARG_RANKS})
    add_test(NAME ${name}_${ranks} COMMAND ${CMAKE_SOURCE_DIR}/scripts/launch -n ${ranks} --
                                           $<TARGET_FILE:${name}>
             WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(${name}_${ranks} PROPERTIES LABELS mpi TIMEOUT 300 PROCESSORS ${ranks}
                                                     ENVIRONMENT "${JAMBA_LEAKS_OF_OTHERS}")
  endforeach()
endfunction()

# jamba_add_cuda_mpi_test(NAME RANKS n ... SOURCES a.cc ... [LIBS libs]): a test of the CUDA backend on
# MPI ranks; on devices, or with JAMBA_CUDA=EMULATED on emulated ones.
function(jamba_add_cuda_mpi_test name)
  if(JAMBA_CUDA STREQUAL "OFF")
    return()
  endif()
  jamba_add_mpi_test(${name} ${ARGN})
  if(JAMBA_CUDA STREQUAL "ON")
    jamba_use_cuda(${name})
    return()
  endif()
  jamba_use_cuda(${name} emulated)
  cmake_parse_arguments(ARG "" "" "RANKS;SOURCES;LIBS" ${ARGN})
  foreach(ranks ${ARG_RANKS})
    set_property(TEST ${name}_${ranks} APPEND PROPERTY ENVIRONMENT JAMBA_EMULATED_DEVICES=${ranks})
  endforeach()
endfunction()

# jamba_ops_sources(a.cc ...): adds this folder's files to the jamba_ops library.
macro(jamba_ops_sources)
  set(sources ${ARGN})
  list(TRANSFORM sources PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  set(JAMBA_OPS_SOURCES ${JAMBA_OPS_SOURCES} ${sources} PARENT_SCOPE)
endmacro()
