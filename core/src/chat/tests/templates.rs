//! Chat templates of our own that write the documented formats of model families, with the constructs their templates live on.

/// Llama 3: header tokens, trimmed text, the date and the tools in the system turn, one call at a time.
pub(in crate::chat) const LLAMA_3: &str = r##"
{#- Turns are <|start_header_id|>role<|end_header_id|>, an empty line, the text, <|eot_id|>. #}
{%- macro turn(role) -%}
    {{ "<|start_header_id|>" + role + "<|end_header_id|>\n\n" }}
{%- endmacro %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set rest = messages %}
{%- set instructions = "" %}
{%- if messages[0]["role"] == "system" %}
    {%- set instructions = messages[0]["content"] | trim %}
    {%- set rest = messages[1:] %}
{%- endif %}
{{- bos_token ~ turn("system") ~ "Today Date: " }}
{%- if strftime_now is defined %}{{ strftime_now("%d %b %Y") }}{% else %}{{ "unknown" }}{% endif %}
{{- "\n\n" }}
{%- if tools is not none %}
    {{- "Functions:\n\n" }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) ~ "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- instructions ~ "<|eot_id|>" }}
{%- for m in rest %}
    {%- if "tool_calls" in m %}
        {%- if m.tool_calls | length > 1 %}
            {{- raise_exception("one tool call at a time, please") }}
        {%- endif %}
        {%- set call = m.tool_calls[0].function %}
        {{- turn("assistant") ~ '{"name": "' ~ call.name ~ '", "parameters": ' ~ call.arguments | tojson ~ "}" }}
    {%- elif m["role"] in ["tool", "ipython"] %}
        {{- turn("ipython") ~ (m.content if m.content is string else m.content | tojson) }}
    {%- else %}
        {{- turn(m["role"]) + m["content"] | trim }}
    {%- endif %}
    {{- "<|eot_id|>" }}
{%- endfor %}
{%- if add_generation_prompt %}{{ turn("assistant") }}{% endif %}
"##;

/// Qwen 3: ChatML, tools and calls in tags, the thoughts of earlier turns left out, a switch for thinking.
pub(in crate::chat) const QWEN_3: &str = r##"
{%- set state = namespace(asked=-1) %}
{%- for m in messages[::-1] %}
    {%- if state.asked < 0 and m.role == "user" and not m.content.startswith("<tool_response>") %}
        {%- set state.asked = messages | length - loop.index %}
    {%- endif %}
{%- endfor %}
{%- set has_system = messages[0].role == "system" %}
{%- if tools or has_system %}
    {{- "<|im_start|>system\n" }}
    {%- if has_system %}{{ messages[0].content }}{% endif %}
    {%- if tools %}
        {{- "\n\n" if has_system else "" }}
        {{- "# Tools\n\n<tools>" }}
        {%- for tool in tools %}
            {{- "\n" ~ tool | tojson }}
        {%- endfor %}
        {{- "\n</tools>" }}
    {%- endif %}
    {{- "<|im_end|>\n" }}
{%- endif %}
{%- for m in messages %}
    {%- if m.role == "assistant" %}
        {%- set parts = m.content.split("</think>") %}
        {%- set said = parts[-1].lstrip("\n") %}
        {{- "<|im_start|>assistant\n" }}
        {%- if parts | length > 1 and loop.index0 > state.asked %}
            {{- "<think>\n" + parts[0].split("<think>")[-1].strip("\n") + "\n</think>\n\n" }}
        {%- endif %}
        {{- said }}
        {%- if m.tool_calls is defined %}
            {%- for call in m.tool_calls %}
                {%- if call.function %}{% set call = call.function %}{% endif %}
                {%- if said or not loop.first %}{{ "\n" }}{% endif %}
                {{- '<tool_call>\n{"name": "' + call.name + '", "arguments": ' }}
                {{- call.arguments if call.arguments is string else call.arguments | tojson }}
                {{- "}\n</tool_call>" }}
            {%- endfor %}
        {%- endif %}
        {{- "<|im_end|>\n" }}
    {%- elif m.role == "tool" %}
        {%- if loop.previtem is undefined or loop.previtem.role != "tool" %}{{ "<|im_start|>user" }}{% endif %}
        {{- "\n<tool_response>\n" ~ m.content ~ "\n</tool_response>" }}
        {%- if loop.last or loop.nextitem.role != "tool" %}{{ "<|im_end|>\n" }}{% endif %}
    {%- elif not (loop.first and has_system) %}
        {{- "<|im_start|>" ~ m.role ~ "\n" ~ m.content ~ "<|im_end|>\n" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant\n" }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{ "<think>\n\n</think>\n\n" }}{% endif %}
{%- endif %}
"##;

/// Gemma: no system role, strict alternation, and the model's role is called model.
pub(in crate::chat) const GEMMA: &str = r##"{{ bos_token }}
{%- for m in messages -%}
    {%- if m["role"] == "system" -%}{{ raise_exception("no system role here") }}{%- endif -%}
    {%- set expected = ["user", "assistant"][loop.index0 % 2] -%}
    {%- if m["role"] != expected -%}{{ raise_exception("expected a turn of the " + expected) }}{%- endif -%}
    {{ "<start_of_turn>" + {"user": "user", "assistant": "model"}[expected] + "\n" }}{{ m["content"] | trim }}{{ "<end_of_turn>\n" }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "<start_of_turn>model\n" }}{%- endif -%}"##;

/// Phi-3: tags on lines of their own without a minus, which vanish with `trim_blocks` and `lstrip_blocks` only.
pub(in crate::chat) const PHI_3: &str = "{% for m in messages %}
    {% if m.role in ('system', 'user', 'assistant') %}
{{ '<|' ~ m.role ~ '|>' }}
{{ m.content }}<|end|>
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|assistant|>
{{ '' }}
{%- else %}
{{ eos_token }}
{%- endif %}";

/// Mistral: the system text beside the last question, tools before it, calls with identifiers of nine characters.
pub(in crate::chat) const MISTRAL: &str = r##"
{%- set questions = messages | selectattr("role", "equalto", "user") | list %}
{%- set others = messages | rejectattr("role", "equalto", "system") | list %}
{{- bos_token }}
{%- for m in others %}
    {%- if m.role == "user" %}
        {%- if m == questions[-1] and tools is not none %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, value in tool.function.items() %}
                    {{- '"' + key + '": ' }}{{ value | tojson }}{{ "" if loop.last else ", " }}
                {%- endfor %}
                {{- "}}" ~ ("" if loop.last else ", ") }}
            {%- endfor %}
            {{- "][/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {{- "[INST] " }}
        {%- if loop.last and messages[0].role == "system" %}{{ messages[0].content + "\n\n" }}{% endif %}
        {{- m.content + "[/INST]" }}
    {%- elif m.tool_calls is defined and m.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for call in m.tool_calls %}
            {%- if call.id is undefined or call.id | length != 9 %}
                {{- raise_exception("a call's id has nine characters") }}
            {%- endif %}
            {{- (call.function | tojson)[:-1] ~ ', "id": "' ~ call.id ~ '"}' ~ ("" if loop.last else ", ") }}
        {%- endfor %}
        {{- "]" ~ eos_token }}
    {%- elif m.role == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' ~ m.content | string ~ ', "call_id": "' ~ m.tool_call_id ~ '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- " " ~ m.content | trim ~ eos_token }}
    {%- endif %}
{%- endfor %}
"##;

/// SmolLM: ChatML with instructions of its own where there are none, and SmolLM 3's marks for training.
pub(in crate::chat) const SMOLLM: &str = r##"{% if messages[0].role != "system" %}
{{- "<|im_start|>system\nYou are SmolLM.<|im_end|>\n" }}
{%- endif %}
{% for m in messages %}
    {%- generation -%}
    {{ "<|im_start|>" ~ m.role ~ "\n" ~ m.content ~ "<|im_end|>\n" }}
    {%- endgeneration %}
{% endfor %}
{% if add_generation_prompt %}{{ "<|im_start|>assistant\n" }}{% endif %}"##;
