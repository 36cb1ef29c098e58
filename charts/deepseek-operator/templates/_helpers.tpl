{{/* Name of everything in the release: the release's own when it already says what it is. */}}
{{- define "operator.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* "true" when the metrics APIs are served: they answer for all namespaces. */}}
{{- define "operator.metricsApi" -}}
{{- if and .Values.metricsApi.enabled (not .Values.watchNamespace) }}true{{ end -}}
{{- end -}}

{{- define "operator.selector" -}}
app.kubernetes.io/name: deepseek-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "operator.labels" -}}
{{ include "operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Not empty where there are tenants: they need rights in all namespaces. */}}
{{- define "operator.tenants" -}}
{{- if and .Values.tenants.enabled (not .Values.watchNamespace) -}}true{{- end -}}
{{- end -}}
