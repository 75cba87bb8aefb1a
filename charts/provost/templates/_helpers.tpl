{{/* Name of every object: the release's, with `provost` in it. Short enough for what Kubernetes appends to it. */}}
{{- define "provost.name" -}}
{{- if contains "provost" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-provost" (.Release.Name | trunc 42 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* What selects the replicas; it can never change after the first installation. */}}
{{- define "provost.selector" -}}
app.kubernetes.io/name: provost
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "provost.labels" -}}
{{ include "provost.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The Secret that holds certificate and key. */}}
{{- define "provost.tlsSecret" -}}
{{- .Values.tls.existingSecret | default (printf "%s-tls" (include "provost.name" .)) -}}
{{- end -}}

{{/* The ConfigMap that holds the policies. */}}
{{- define "provost.policies" -}}
{{- .Values.policiesConfigMap | default (printf "%s-policies" (include "provost.name" .)) -}}
{{- end -}}

{{/* provost.yaml: what the values say, and over it what the objects of this chart depend on. */}}
{{- define "provost.config" -}}
{{- $own := dict
  "listen" (printf "%s:8443" .Values.listenAddress)
  "healthListen" (printf "%s:8080" .Values.listenAddress)
  "tls" (dict "cert" "/etc/provost/tls/tls.crt" "key" "/etc/provost/tls/tls.key")
  "policies" "/etc/provost/policies"
  "ledger" (dict "store" "/var/lib/provost/ledger.db" "durability" .Values.ledger.durability)
-}}
{{- merge $own (deepCopy .Values.config) | toYaml -}}
{{- end -}}

{{/* Stops with one sentence that says what to give. The schema has judged the form of each value before. */}}
{{- define "provost.validate" -}}
{{- $tls := .Values.tls -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository is required: where the image is, without tag" -}}
{{- end -}}
{{- if not .Values.image.digest -}}
{{- fail "image.digest is required: the sha256 digest of the image; a tag will not do" -}}
{{- end -}}
{{- if and $tls.existingSecret (or $tls.cert $tls.key) -}}
{{- fail "tls: give tls.existingSecret, or tls.cert and tls.key, not both" -}}
{{- end -}}
{{- if not (or $tls.existingSecret (and $tls.cert $tls.key)) -}}
{{- fail "tls: give tls.existingSecret (a Secret of type kubernetes.io/tls), or both tls.cert and tls.key as PEM" -}}
{{- end -}}
{{- if and .Values.webhook.enabled (not $tls.ca) -}}
{{- fail "tls.ca is required while webhook.enabled is true: the CA of the serving certificate as PEM, which the API server verifies it with" -}}
{{- end -}}
{{- if and .Values.policies .Values.policiesConfigMap -}}
{{- fail "policies: give policies or policiesConfigMap, not both" -}}
{{- end -}}
{{- if not (or .Values.policies .Values.policiesConfigMap) -}}
{{- fail "policies: give at least one policy file under policies, or the name of a ConfigMap in policiesConfigMap; without a policy every image would be denied" -}}
{{- end -}}
{{- end -}}
