# The worker's program, and what it is wired from.
dsm_library(NAME dsm_worker_options
  SRCS cgroup.cc cores.cc kv_size.cc last_words.cc memory_limit.cc options.cc
  PUBLIC dsm_base dsm_sizing)
dsm_test(NAME worker_options_test SRCS kv_size_test.cc last_words_test.cc options_test.cc LIBS dsm_worker_options)

if(TARGET dsm_model)
  dsm_library(NAME dsm_kernel_startup SRCS kernel_startup.cc PUBLIC dsm_model)
  dsm_test(NAME worker_kernel_startup_test SRCS kernel_startup_test.cc LIBS dsm_kernel_startup)
  if(DSM_CUDA_EMULATED)
    # Its own main() is the process that tries, too.
    dsm_test(NAME worker_kernel_trials_emulated_test
      SRCS kernel_trials_emulated_test.cc LIBS dsm_device_emulated dsm_kernel_startup LONG)
  endif()
endif()

# A part of the product without these rooms has no worker.
if(TARGET dsm_server AND TARGET dsm_grammar AND TARGET dsm_grpc AND TARGET dsm_group AND TARGET dsm_model)
  set(worker_program adapter_startup.cc main.cc model_executor.cc startup.cc)
  set(worker_rooms dsm_worker_options dsm_kernel_startup dsm_server dsm_grammar dsm_grpc dsm_group dsm_model)
  dsm_executable(NAME deepseek-worker SRCS ${worker_program} LIBS ${worker_rooms})
  if(DSM_CUDA_EMULATED)
    # The whole program on the emulated GPU, for tests (tests/api/test_gpu_worker.py).
    dsm_executable(NAME deepseek-worker-emulated SRCS ${worker_program} LIBS dsm_device_emulated ${worker_rooms})
    set_target_properties(deepseek-worker-emulated PROPERTIES ENABLE_EXPORTS ON)
  endif()
endif()
