# Helpers that every room uses, so that warnings, sanitizers and test labels are said once.

option(DSM_WERROR "Treat warnings in our own code as errors" ON)
set(DSM_SANITIZE "" CACHE STRING "Sanitizers for all our targets: 'address,undefined' or 'thread'; empty for none")

find_package(Threads REQUIRED)

# Usage requirements shared by all of our targets.
add_library(dsm_options INTERFACE)
target_compile_features(dsm_options INTERFACE cxx_std_23)
target_include_directories(dsm_options INTERFACE ${PROJECT_SOURCE_DIR})
target_link_libraries(dsm_options INTERFACE Threads::Threads)
target_compile_options(dsm_options INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor)
# False positives of GCC 12 in optimised builds: overlapping copies in std::string's operator+, overflows in
# std::vector's insert, and the deliberately undefined vectors inside its AVX-512 intrinsics.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(dsm_options INTERFACE -Wno-restrict -Wno-stringop-overflow -Wno-maybe-uninitialized)
endif()
if(DSM_WERROR)
  target_compile_options(dsm_options INTERFACE -Werror)
endif()
if(DSM_SANITIZE)
  # -g1 is what a stack trace needs; full debug information doubles the time to compile.
  target_compile_options(dsm_options INTERFACE -fsanitize=${DSM_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -g1)
  target_link_options(dsm_options INTERFACE -fsanitize=${DSM_SANITIZE})
  # GCC 12 reports false positives of these when sanitizer code is between the lines.
  target_compile_options(dsm_options INTERFACE -Wno-maybe-uninitialized -Wno-tsan)
endif()

# dsm_library(NAME n SRCS ... [PUBLIC libs...] [PRIVATE libs...] [COMPUTES])
# COMPUTES: its loops are long, so it is optimised in builds with sanitizers too. Nothing else is: GCC takes up to ten
# times as long to optimise sanitizer code, and saves less than that in a run of the tests.
function(dsm_library)
  cmake_parse_arguments(A "COMPUTES" "NAME" "SRCS;PUBLIC;PRIVATE" ${ARGN})
  add_library(${A_NAME} STATIC ${A_SRCS})
  target_link_libraries(${A_NAME} PUBLIC dsm_options ${A_PUBLIC} PRIVATE ${A_PRIVATE})
  if(A_COMPUTES AND DSM_SANITIZE)
    target_compile_options(${A_NAME} PRIVATE -O1)
  endif()
endfunction()

# dsm_executable(NAME n SRCS ... [LIBS ...]); the program lands in the root of the build folder.
function(dsm_executable)
  cmake_parse_arguments(A "" "NAME" "SRCS;LIBS" ${ARGN})
  add_executable(${A_NAME} ${A_SRCS})
  target_link_libraries(${A_NAME} PRIVATE dsm_options ${A_LIBS})
  set_target_properties(${A_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
endfunction()

# dsm_test(NAME n SRCS ... [LIBS ...] [LABEL unit|integration|races] [ARGS ...] [THREADS] [LONG])
# One GoogleTest program, run as one ctest test from the root of the repository. THREADS: it starts threads, so it is
# also run under ThreadSanitizer (target thread_tests, label threads).
# races: kernels on the emulated GPU whose threads are watched (target race_tests).
# LONG: among the longest, so it is started first, and no core waits for it at the end.
# DSM_TEST_LIBS: what a room's tests link beside LIBS, all of them.
add_custom_target(thread_tests)
add_custom_target(race_tests)
function(dsm_test)
  if(NOT BUILD_TESTING)
    return()
  endif()
  cmake_parse_arguments(A "THREADS;LONG" "NAME;LABEL" "SRCS;LIBS;ARGS" ${ARGN})
  if(NOT A_LABEL)
    set(A_LABEL unit)
  endif()
  find_package(GTest REQUIRED)
  add_executable(${A_NAME} ${A_SRCS})
  target_link_libraries(${A_NAME} PRIVATE dsm_options ${A_LIBS} ${DSM_TEST_LIBS}
    GTest::gmock GTest::gtest GTest::gmock_main)
  add_test(NAME ${A_NAME} COMMAND ${A_NAME} ${A_ARGS} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(A_LABEL STREQUAL "races")
    add_dependencies(race_tests ${A_NAME})
  endif()
  if(A_THREADS)
    list(APPEND A_LABEL threads)
    add_dependencies(thread_tests ${A_NAME})
  endif()
  set_tests_properties(${A_NAME} PROPERTIES LABELS "${A_LABEL}" TIMEOUT 300)
  if(A_LONG)
    set_tests_properties(${A_NAME} PROPERTIES COST 100)
  endif()
endfunction()

# dsm_grpc_messages(NAME n PROTO file) compiles a .proto of the current room, included as "<room>/<file>.pb.h", like
# everything else. What protoc wrote is not ours to warn about. clang-tidy needs the headers, too: generated_sources.
add_custom_target(generated_sources)
function(dsm_grpc_messages)
  cmake_parse_arguments(A "" "NAME;PROTO" "" ${ARGN})
  find_package(PkgConfig REQUIRED)
  pkg_check_modules(GRPCPP REQUIRED IMPORTED_TARGET GLOBAL grpc++)
  pkg_check_modules(PROTOBUF REQUIRED IMPORTED_TARGET GLOBAL protobuf)
  find_program(PROTOC protoc REQUIRED)
  find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
  file(RELATIVE_PATH room ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  get_filename_component(stem ${A_PROTO} NAME_WE)
  set(generated ${CMAKE_CURRENT_BINARY_DIR}/generated)
  set(made)
  foreach(kind pb grpc.pb)
    list(APPEND made ${generated}/${room}/${stem}.${kind}.cc ${generated}/${room}/${stem}.${kind}.h)
  endforeach()
  add_custom_command(OUTPUT ${made}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${generated}
    COMMAND ${PROTOC} -I ${PROJECT_SOURCE_DIR} --cpp_out=${generated} --grpc_out=${generated}
            --plugin=protoc-gen-grpc=${GRPC_CPP_PLUGIN} ${room}/${A_PROTO}
    DEPENDS ${A_PROTO} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} VERBATIM)
  add_custom_target(${A_NAME}_sources DEPENDS ${made})
  add_dependencies(generated_sources ${A_NAME}_sources)
  add_library(${A_NAME} STATIC ${made})
  target_compile_features(${A_NAME} PUBLIC cxx_std_23)
  target_include_directories(${A_NAME} SYSTEM PUBLIC ${generated})
  target_link_libraries(${A_NAME} PUBLIC PkgConfig::GRPCPP PkgConfig::PROTOBUF)
endfunction()
