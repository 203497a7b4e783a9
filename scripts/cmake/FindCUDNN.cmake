# CUDNN::cudnn, from the CUDA toolkit's folders, the system's, or CUDNN_ROOT, with the headers of its
# C++ interface: from the same folders, or from scripts/install_cudnn_frontend's.
find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}/lib)
find_path(CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h
          HINTS ${CUDNN_INCLUDE_DIR} ${CMAKE_SOURCE_DIR}/build/cudnn_frontend/include)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  CUDNN
  REQUIRED_VARS CUDNN_LIBRARY CUDNN_INCLUDE_DIR CUDNN_FRONTEND_INCLUDE_DIR
  REASON_FAILURE_MESSAGE
    "install cuDNN 9.5 or later (cudnn9-cuda-13), or set CUDNN_ROOT to its folder, \
and run scripts/install_cudnn_frontend, which brings cudnn_frontend.h, or go without: JAMBA_CUDNN=OFF")
if(CUDNN_FOUND AND NOT TARGET CUDNN::cudnn)
  add_library(CUDNN::cudnn UNKNOWN IMPORTED)
  set_target_properties(
    CUDNN::cudnn
    PROPERTIES IMPORTED_LOCATION ${CUDNN_LIBRARY} INTERFACE_INCLUDE_DIRECTORIES
                                                  "${CUDNN_INCLUDE_DIR};${CUDNN_FRONTEND_INCLUDE_DIR}")
endif()
