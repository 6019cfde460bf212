# What a libtorch offers besides tensors differs, and its own headers do not tell. Sets
# QNPU_BESIDE_TORCH, libraries to link; the two files that need to know get definitions.
set(QNPU_BESIDE_TORCH)

# oneDNN: Debian's libtorch takes it from the system. A wheel has it inside, hidden, and brings its
# headers, which would not be those of the system's library: libtorch's own products then.
if(TORCH_INSTALL_PREFIX STREQUAL "/usr")
  find_library(DNNL dnnl REQUIRED)
  list(APPEND QNPU_BESIDE_TORCH ${DNNL})
  set_source_files_properties(${PROJECT_SOURCE_DIR}/quant/matmul.cc PROPERTIES
    COMPILE_DEFINITIONS QNPU_ONEDNN)
endif()

# Processes that learn together: c10d's headers of a backend include the backend's own, which must
# be those that libtorch was built with.
set(backends)
if(EXISTS ${TORCH_INSTALL_PREFIX}/include/gloo/algorithm.h)
  list(APPEND backends QNPU_GLOO)
endif()
if(TARGET torch_cuda)
  find_path(NCCL_INCLUDE nccl.h PATHS ${TORCH_INSTALL_PREFIX}/../nvidia/nccl/include NO_DEFAULT_PATH)
  if(NCCL_INCLUDE)
    list(APPEND backends QNPU_NCCL)
    set_source_files_properties(${PROJECT_SOURCE_DIR}/quant/learn/workers.cc PROPERTIES
      INCLUDE_DIRECTORIES ${NCCL_INCLUDE})
  endif()
endif()
set_source_files_properties(${PROJECT_SOURCE_DIR}/quant/learn/workers.cc PROPERTIES
  COMPILE_DEFINITIONS "${backends}")
message(STATUS "libtorch ${Torch_VERSION}: oneDNN ${QNPU_BESIDE_TORCH}; processes by ${backends}")
