# The worker's program, and what it is wired from.
dsm_library(NAME dsm_worker_options
  SRCS cgroup.cc cores.cc kv_size.cc last_words.cc memory_limit.cc options.cc
  PUBLIC dsm_base dsm_sizing)
dsm_test(NAME worker_options_test SRCS kv_size_test.cc last_words_test.cc options_test.cc LIBS dsm_worker_options)

# A part of the product without these rooms has no worker.
if(TARGET dsm_server AND TARGET dsm_grammar AND TARGET dsm_grpc AND TARGET dsm_group AND TARGET dsm_model)
  dsm_executable(NAME deepseek-worker
    SRCS adapter_startup.cc main.cc model_executor.cc startup.cc
    LIBS dsm_worker_options dsm_server dsm_grammar dsm_grpc dsm_group dsm_model)
endif()
