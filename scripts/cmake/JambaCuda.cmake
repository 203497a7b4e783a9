# The CUDA backend: which sources it has, and the libraries that add it to a program.
#
#   JAMBA_CUDA=OFF       programs run on the CPU
#   JAMBA_CUDA=ON        nvcc; every program also runs on CUDA devices
#   JAMBA_CUDA=EMULATED  besides, *_emulated and *_checked programs, in which the backend's sources,
#                        as C++ by clang, run on the CPU (tests/support/cuda_emulation)
#
# A program has the backend if the linker gives it one: kernels/core/backend.h.
set(JAMBA_CUDA OFF CACHE STRING "The CUDA backend: OFF, ON (nvcc) or EMULATED (on the CPU)")
set_property(CACHE JAMBA_CUDA PROPERTY STRINGS OFF ON EMULATED)
option(JAMBA_CUDNN "With JAMBA_CUDA=ON: attention in bfloat16 by cuDNN, where it takes the case" ON)
set(JAMBA_CUDA_EMULATION ${CMAKE_SOURCE_DIR}/tests/support/cuda_emulation)

if(JAMBA_CUDA STREQUAL "ON")
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR "JAMBA_CUDA=ON needs nvcc: install the CUDA toolkit, version 12.8 or later, "
                        "and put its bin folder into PATH, or set CUDACXX=/path/to/nvcc")
  endif()
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    # The code of these, and PTX for later ones.
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100)
  endif()
  enable_language(CUDA)
  # CMake 3.25 does not know that nvcc has C++20.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  if(CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
  endif()
  find_package(CUDAToolkit REQUIRED)
  find_package(NCCL REQUIRED)
  if(JAMBA_CUDNN)
    find_package(CUDNN REQUIRED)
  endif()
elseif(JAMBA_CUDA STREQUAL "EMULATED")
  find_program(JAMBA_CLANG NAMES clang++ clang++-14)
  if(NOT JAMBA_CLANG)
    message(FATAL_ERROR "JAMBA_CUDA=EMULATED needs clang++: apt-get install clang")
  endif()
elseif(NOT JAMBA_CUDA STREQUAL "OFF")
  message(FATAL_ERROR "JAMBA_CUDA=${JAMBA_CUDA}: expected OFF, ON or EMULATED")
endif()

# Of kernels whose every access is checked; ThreadSanitizer's calls end in our own checks.
set(JAMBA_CHECK_FLAGS -fsanitize=thread,alignment,bounds -fsanitize-trap=alignment,bounds)

# jamba_cuda_sources(a.cu b_cuda.cc ...): files of this folder that belong to the backend.
function(jamba_cuda_sources)
  list(TRANSFORM ARGN PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  set_property(GLOBAL APPEND PROPERTY JAMBA_CUDA_SOURCES ${ARGN})
endfunction()

# jamba_cudnn_sources(a_cuda.cc ...): the same, of what needs cuDNN. Emulated programs have them only
# where a test adds them, with cuDNN's twin: our own kernels are what the emulation is for.
function(jamba_cudnn_sources)
  list(TRANSFORM ARGN PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  set_property(GLOBAL APPEND PROPERTY JAMBA_CUDNN_SOURCES ${ARGN})
endfunction()

# One object by clang from a .cu file, with the given suffix and flags.
function(jamba_emulate out source suffix)
  get_filename_component(source ${source} ABSOLUTE)
  file(RELATIVE_PATH name ${CMAKE_SOURCE_DIR} ${source})
  set(object ${CMAKE_BINARY_DIR}/${suffix}/${name}.o)
  get_filename_component(folder ${object} DIRECTORY)
  file(MAKE_DIRECTORY ${folder})
  add_custom_command(
    OUTPUT ${object}
    COMMAND
      ${CCACHE} ${JAMBA_CLANG} -x c++ -std=c++20 -O2 -g1 -Wall -Wextra -Wshadow -Wno-pass-failed $<$<BOOL:${JAMBA_WERROR}>:-Werror>
      -I${CMAKE_SOURCE_DIR} -I${JAMBA_CUDA_EMULATION}/include ${ARGN} -MD -MF ${object}.d -c
      ${source} -o ${object}
    DEPENDS ${source}
    DEPFILE ${object}.d
    COMMENT "Emulating ${name} (${suffix})"
    COMMAND_EXPAND_LISTS VERBATIM)
  set(${out} ${object} PARENT_SCOPE)
endfunction()

# jamba_add_cuda_backends(): after every jamba_cuda_sources.
function(jamba_add_cuda_backends)
  get_property(sources GLOBAL PROPERTY JAMBA_CUDA_SOURCES)
  if(JAMBA_CUDA STREQUAL "ON")
    add_library(jamba_cuda STATIC ${sources})
    set_target_properties(jamba_cuda PROPERTIES CUDA_SEPARABLE_COMPILATION OFF)
    target_compile_options(jamba_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo>)
    target_include_directories(jamba_cuda PRIVATE ${CMAKE_SOURCE_DIR})
    target_link_libraries(jamba_cuda PUBLIC jamba_ops jamba_comm CUDA::cudart CUDA::cublasLt NCCL::nccl)
    if(JAMBA_CUDNN)
      get_property(cudnn_sources GLOBAL PROPERTY JAMBA_CUDNN_SOURCES)
      target_sources(jamba_cuda PRIVATE ${cudnn_sources})
      target_link_libraries(jamba_cuda PUBLIC CUDNN::cudnn)
    endif()
  elseif(JAMBA_CUDA STREQUAL "EMULATED")
    set(host ${sources})
    list(FILTER host EXCLUDE REGEX "[.]cu$")
    list(FILTER sources INCLUDE REGEX "[.]cu$")
    foreach(variant emulated checked)
      set(objects)
      set(flags)
      if(variant STREQUAL "checked")
        set(flags ${JAMBA_CHECK_FLAGS})
      endif()
      foreach(source ${sources})
        jamba_emulate(object ${source} ${variant} ${flags})
        list(APPEND objects ${object})
      endforeach()
      add_library(jamba_cuda_${variant} STATIC ${host} ${objects})
      target_link_libraries(jamba_cuda_${variant} PUBLIC jamba_ops jamba_comm cuda_emulation)
    endforeach()
    target_link_libraries(jamba_cuda_checked PUBLIC cuda_emulation_check)
  endif()
endfunction()

# jamba_use_cuda(TARGET [VARIANT]): adds the backend, with JAMBA_CUDA=EMULATED the given variant.
function(jamba_use_cuda target)
  set(library jamba_cuda)
  if(ARGC GREATER 1)
    set(library jamba_cuda_${ARGV1})
  endif()
  # All of it: nothing refers to it by more than weak names.
  target_link_libraries(${target} PRIVATE $<LINK_LIBRARY:WHOLE_ARCHIVE,${library}>)
endfunction()
