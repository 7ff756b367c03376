{{- define "keylane.labels" -}}
app.kubernetes.io/name: keylane
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "keylane.selector" -}}
app.kubernetes.io/name: keylane
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}
{{- /* Not empty if metrics are behind reviews. Values of a release before these (helm upgrade --reuse-values) have none. */ -}}
{{- define "keylane.reviewed" -}}
{{- if eq (dig "access" "" (.Values.metrics | default dict)) "TokenReview" }}yes{{ end }}
{{- end }}
{{- /* A role for people. There is one operator for a whole cluster; of those for one namespace each has its own. */ -}}
{{- define "keylane.people" -}}
keylane-{{ .role }}{{ with .Values.watchNamespace }}-{{ . }}{{ end }}
{{- end }}
{{- define "keylane.name" -}}
{{ printf "%s-operator" .Release.Name | trunc 52 | trimSuffix "-" }}
{{- end }}
