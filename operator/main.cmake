# The program. Included by operator/CMakeLists.txt.
dsm_executable(NAME deepseek-operator SRCS main.cc options.cc LIBS dsm_keda dsm_metrics_api dsm_runtime)
