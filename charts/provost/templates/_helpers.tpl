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

{{/* The Secret that holds the tokens of callers. */}}
{{- define "provost.callerSecret" -}}
{{- .Values.caller.existingSecret | default (printf "%s-callers" (include "provost.name" .)) -}}
{{- end -}}

{{/*
Settles how callers make themselves known, in .Values.caller.settled: `byToken`; `content`, of the Secret, empty where that
cannot be seen; `registered`, the token in the webhook's path, empty where there is none. Once a rendering: what is drawn at
random must be the same in every template. No message may show a token.
*/}}
{{- define "provost.settleCaller" -}}
{{- $caller := .Values.caller -}}
{{- if not (hasKey $caller "settled") -}}
{{- $name := include "provost.callerSecret" . -}}
{{- $content := "" -}}
{{- $registered := "" -}}
{{- $byToken := or $caller.existingSecret $caller.tokens (not $caller.clientCa) -}}
{{- if and $byToken $caller.tokens (not $caller.existingSecret) -}}
{{- $content = printf "%s\n" (join "\n" $caller.tokens) -}}
{{- else if $byToken -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace $name -}}
{{- if $secret -}}
{{- $content = dig "data" "tokens" "" $secret | b64dec -}}
{{- if not $content -}}
{{- fail (printf "caller: the Secret %s holds nothing under the key `tokens`" $name) -}}
{{- end -}}
{{- else if $caller.existingSecret -}}
{{- if and .Values.webhook.enabled (not $caller.tokens) -}}
{{- fail (printf "caller.existingSecret: the Secret %s is not there, or this rendering cannot see the cluster (helm template, --dry-run=client, most GitOps tools): give the token that is registered in caller.tokens as well" $name) -}}
{{- end -}}
{{- else if lookup "v1" "Namespace" "" "kube-system" -}}
{{- $content = printf "%s\n" (randAlphaNum 40 | lower) -}}
{{- else -}}
{{- fail "caller: this rendering cannot see the cluster (helm template, --dry-run=client, most GitOps tools), so that a token made here would be another one each time: give caller.tokens, or caller.existingSecret with the token that is registered in caller.tokens" -}}
{{- end -}}
{{- end -}}
{{- $lines := list -}}
{{- range $number, $line := splitList "\n" $content -}}
{{- $line = trim $line -}}
{{- if and $line (not (hasPrefix "#" $line)) -}}
{{- if not (regexMatch "^[a-z0-9][-a-z0-9]{14,61}[a-z0-9]$" $line) -}}
{{- fail (printf "caller: line %d of the tokens is no token: 16 to 63 of a-z, 0-9 and -, and - neither first nor last" (add1 $number)) -}}
{{- end -}}
{{- $lines = append $lines $line -}}
{{- end -}}
{{- end -}}
{{- if gt (len $lines) 16 -}}
{{- fail "caller: there are more than 16 tokens" -}}
{{- end -}}
{{- if and $content (not $lines) -}}
{{- fail "caller: there is no token among the lines of the tokens" -}}
{{- end -}}
{{- if and $caller.existingSecret $caller.tokens -}}
{{- if gt (len $caller.tokens) 1 -}}
{{- fail "caller.tokens: beside caller.existingSecret give only the token that is registered; all others are in the Secret" -}}
{{- end -}}
{{- if and $lines (not (has (first $caller.tokens) $lines)) -}}
{{- fail (printf "caller.tokens: the Secret %s does not hold this token" $name) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z0-9][-a-z0-9]{14,61}[a-z0-9]$" (first $caller.tokens)) -}}
{{- fail "caller.tokens: this is no token: 16 to 63 of a-z, 0-9 and -, and - neither first nor last" -}}
{{- end -}}
{{- $registered = first $caller.tokens -}}
{{- else if $lines -}}
{{- $registered = first $lines -}}
{{- end -}}
{{- if and $caller.clientSubjects (not $caller.clientCa) -}}
{{- fail "caller.clientSubjects: give the CA of their certificates in caller.clientCa as well" -}}
{{- end -}}
{{- $_ := set $caller "settled" (dict "byToken" (not (not $byToken)) "content" $content "registered" $registered) -}}
{{- end -}}
{{- end -}}

{{/* Where the API server sends reviews. */}}
{{- define "provost.path" -}}
{{- include "provost.settleCaller" . -}}
{{- with .Values.caller.settled.registered }}{{ printf "/validate/%s" . }}{{ else }}/validate{{ end -}}
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
{{- include "provost.settleCaller" . -}}
{{- if .Values.caller.settled.byToken -}}
{{- $_ := set $own "callerToken" "/etc/provost/callers/tokens" -}}
{{- end -}}
{{- if .Values.caller.clientCa -}}
{{- $_ := set $own.tls "clientCa" "/etc/provost/callers/ca.crt" -}}
{{- end -}}
{{- with .Values.caller.clientSubjects -}}
{{- $_ := set $own.tls "clientSubjects" . -}}
{{- end -}}
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
