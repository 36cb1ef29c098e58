# The CUDA backend, of which nothing is built or fetched unless DSM_CUDA is on. The compiler is nvcc from
# scripts/cuda-toolchain, called by rules of our own: CMake 3.25 does not know architectures like 100a, and wants more of
# a toolkit than compiling takes. cudart is linked statically and finds the driver at run time, so that one program runs
# where there is a GPU and where there is none.
option(DSM_CUDA "Build the CUDA backend" OFF)
# Without it tests run the kernels on the CPU (kernels/cuda/emulation), which is written for x86-64 and unknown to
# ThreadSanitizer.
set(DSM_CUDA_EMULATED OFF)
if(BUILD_TESTING AND NOT DSM_CUDA AND CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64" AND NOT DSM_SANITIZE MATCHES "thread")
  set(DSM_CUDA_EMULATED ON)
endif()
# dsm_emulated_cuda(target): its files include what stands for CUDA's headers and for kernels/cuda/ptx.cuh.
function(dsm_emulated_cuda target)
  target_include_directories(${target} BEFORE PRIVATE ${PROJECT_SOURCE_DIR}/kernels/cuda/emulation/include)
endfunction()
if(NOT DSM_CUDA)
  return()
endif()
set(DSM_CUDA_ARCHS 80 90a 100a CACHE STRING "GPUs to compile for: A100, H100 and H200, B200")
if(NOT DSM_CUDA_ROOT)
  execute_process(COMMAND ${PROJECT_SOURCE_DIR}/scripts/cuda-toolchain OUTPUT_VARIABLE root
                  OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(DSM_CUDA_ROOT ${root} CACHE PATH "The CUDA compiler, its headers and cudart")
endif()

add_library(dsm_cudart INTERFACE)
target_include_directories(dsm_cudart SYSTEM INTERFACE ${DSM_CUDA_ROOT}/include)
target_link_libraries(dsm_cudart INTERFACE ${DSM_CUDA_ROOT}/lib/libcudart_static.a Threads::Threads dl rt)

# dsm_cuda_library(NAME n SRCS *.cu ... [PUBLIC libs...])
function(dsm_cuda_library)
  cmake_parse_arguments(A "" "NAME" "SRCS;PUBLIC" ${ARGN})
  # No contraction: a * b + c is two roundings unless it is written as fmaf, as on the CPU.
  set(flags -std=c++20 -O3 -fmad=false -I ${PROJECT_SOURCE_DIR} -ccbin ${CMAKE_CXX_COMPILER} -Xcompiler -Wall,-Wextra)
  if(DSM_WERROR)
    list(APPEND flags -Werror all-warnings)
  endif()
  foreach(arch IN LISTS DSM_CUDA_ARCHS)
    list(APPEND flags -gencode arch=compute_${arch},code=sm_${arch})
  endforeach()
  # By the files that nvcc names, never by what a preprocessor makes of them: it would see one architecture of several.
  set(launcher)
  if(CCACHE)
    set(launcher ${CMAKE_COMMAND} -E env CCACHE_DEPEND=true ${CCACHE})
  endif()
  file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/${A_NAME}.dir)
  set(objects)
  foreach(source IN LISTS A_SRCS)
    cmake_path(ABSOLUTE_PATH source NORMALIZE)
    get_filename_component(stem ${source} NAME)
    set(object ${A_NAME}.dir/${stem}.o)
    add_custom_command(OUTPUT ${object}
      COMMAND ${launcher} ${DSM_CUDA_ROOT}/bin/nvcc ${flags} -MD -MF ${object}.d -MT ${object} -c ${source} -o ${object}
      DEPENDS ${source} DEPFILE ${object}.d COMMENT "Compiling ${stem} for ${DSM_CUDA_ARCHS}" VERBATIM)
    list(APPEND objects ${CMAKE_CURRENT_BINARY_DIR}/${object})
  endforeach()
  add_library(${A_NAME} STATIC ${objects})
  set_target_properties(${A_NAME} PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(${A_NAME} PUBLIC dsm_options dsm_cudart ${A_PUBLIC})
endfunction()

# dsm_gpu_test(NAME n SRCS ... [LIBS ...]): a GoogleTest program that is skipped where there is no GPU (exit code 77).
# Target gpu_tests builds all of them into one folder, from which they also run on a machine that has nothing else.
add_custom_target(gpu_tests)
function(dsm_gpu_test)
  if(NOT BUILD_TESTING)
    return()
  endif()
  cmake_parse_arguments(A "" "NAME" "SRCS;LIBS" ${ARGN})
  find_package(GTest REQUIRED)
  add_executable(${A_NAME} ${A_SRCS} ${PROJECT_SOURCE_DIR}/tests/gpu/main.cc)
  target_link_libraries(${A_NAME} PRIVATE dsm_options dsm_cudart ${A_LIBS} ${DSM_TEST_LIBS} GTest::gmock GTest::gtest)
  set_target_properties(${A_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/gpu-tests EXCLUDE_FROM_ALL ON
                        BUILD_RPATH "$ORIGIN/lib")
  add_dependencies(gpu_tests ${A_NAME})
  add_test(NAME ${A_NAME} COMMAND ${A_NAME} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${A_NAME} PROPERTIES LABELS gpu TIMEOUT 600 SKIP_RETURN_CODE 77)
endfunction()
