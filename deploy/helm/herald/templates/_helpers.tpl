{{- define "herald.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "herald.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "herald.labels" -}}
{{ include "herald.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The pause, the drain and the margin: a replica that is killed earlier cuts its streams instead of ending them. */}}
{{- define "herald.gracePeriodSeconds" -}}
{{- add .Values.stop.preStopSeconds .Values.stop.drainSeconds .Values.stop.marginSeconds }}
{{- end }}

{{/* What no schema can say: values that are right by themselves and wrong together. */}}
{{- define "herald.check" -}}
{{- $local := not .Values.engine.existingSecret }}
{{- if and $local (or .Values.autoscaling.enabled (gt (int .Values.replicas) 1)) }}
{{- fail "several replicas need an engine: set engine.existingSecret, or replicas to 1 and autoscaling.enabled to false" }}
{{- end }}
{{- if and $local (not .Values.persistence.enabled) }}
{{- fail "without an engine the volume is the log: set engine.existingSecret, or persistence.enabled" }}
{{- end }}
{{- $auth := index .Values.settings "auth" | default "none" }}
{{- if and (eq $auth "none") (ne (index .Values.settings "insecure-no-auth" | default "false") "true") }}
{{- fail "everybody in the cluster could read everything, and Herald does not start like that: set settings.auth, or settings.insecure-no-auth to \"true\"" }}
{{- end }}
{{- end }}
