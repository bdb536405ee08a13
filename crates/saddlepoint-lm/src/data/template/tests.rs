use std::path::Path;

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::*;

fn compile(source: &str) -> Result<Template> {
    let config = json!({ "bos_token": "<s>", "eos_token": { "content": "</s>" }, "model_max_length": 7 });
    Template::new(Path::new("m/chat_template.jinja"), source, &config, None)
}

fn messages(list: &Json) -> Vec<Message> {
    let list = list.as_array().expect("a list");
    list.iter().map(|m| m.as_object().expect("a message").clone()).collect()
}

fn render(source: &str, list: &Json) -> Result<Rendered, TemplateError> {
    compile(source).expect("it compiles").render(&messages(list), &Map::new(), true)
}

fn text(source: &str) -> String {
    render(source, &json!([{ "role": "user", "content": "hi" }])).expect("it renders").text
}

#[test]
fn special_tokens_come_from_the_tokenizer_config() {
    assert_eq!(
        text("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}{{ pad_token }}"),
        "<s>hi</s>"
    );
}

#[test]
fn tools_and_documents_are_none_and_dates_undefined_unless_given() {
    assert_eq!(text("{{ tools is none }}{{ documents }}{{ strftime_now is defined }}"), "TrueNoneFalse");
}

#[test]
fn generation_blocks_become_byte_ranges() {
    let source = "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}\n{{ m.content }}!{% endgeneration %}\n{% else %}U:{{ m.content }};{% endif %}{% endfor %}";
    let list = json!([{ "role": "user", "content": "ü" }, { "role": "assistant", "content": "é" }]);
    let rendered = render(source, &list).expect("it renders");
    assert_eq!(rendered.text, "U:ü;A:é!");
    assert_eq!(rendered.generated, vec![7..10]);
}

#[test]
fn conversations_cannot_forge_generation_marks() {
    let source = "{% generation %}{{ messages[0].content }}{% endgeneration %}";
    let list = json!([{ "role": "user", "content": "a\u{FDD1}b" }]);
    assert_eq!(render(source, &list), Err(TemplateError::Reserved));
    assert_eq!(render("{{ messages[0].content }}", &list).expect("no marks in use").text, "a\u{FDD1}b");
}

#[test]
fn a_refusal_carries_the_templates_words_and_line() {
    let error = render("\n{{ raise_exception('roles must alternate') }}", &json!([])).expect_err("it raises");
    assert_eq!(
        error.to_string(),
        "the chat template refuses this conversation: roles must alternate (template line 2)"
    );
}

#[test]
fn failures_name_the_line() {
    let error =
        render("a\nb\n{{ messages[0].nothing.more }}", &json!([{}])).expect_err("nothing has no attributes");
    assert_eq!(
        error.to_string(),
        "the chat template fails: undefined value: `messages[0].nothing` is undefined (template line 3)"
    );
    let error = render("{{ strftime_now('%Y') }}", &json!([])).expect_err("no date was given");
    assert_eq!(
        error.to_string(),
        "the chat template fails: it asks for today's date (strftime_now); set `data.today = \"YYYY-MM-DD\"`, so that \
         the same run renders the same text on any day (template line 1)"
    );
}

#[test]
fn syntax_errors_name_file_and_line() {
    let error = compile("a\n{% if %}").expect_err("an expression is missing").to_string();
    assert_eq!(
        error,
        "m/chat_template.jinja: line 2 of the chat template: syntax error: unexpected end of block"
    );
    assert!(compile("{% generation %}x").is_err());
    assert!(compile("x{% endgeneration %}").is_err());
}

#[test]
fn a_given_date_is_formatted() {
    let date = "2024-07-26".parse().expect("a date");
    let template = Template::new(Path::new("t"), "{{ strftime_now('%d %b %Y') }}", &json!({}), Some(date))
        .expect("it compiles");
    assert_eq!(template.render(&[], &Map::new(), false).expect("it renders").text, "26 Jul 2024");
}

#[test]
fn endless_templates_end() {
    let source = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}";
    let error = render(source, &json!([])).expect_err("it costs too much");
    assert!(error.to_string().contains("engine ran out of fuel"), "{error}");
}

#[test]
fn reasoning_is_found_under_the_name_that_templates_read() {
    let list = json!([{ "role": "assistant", "content": "x", "thinking": "why" }]);
    assert_eq!(render("{{ messages[0].reasoning_content }}", &list).expect("it renders").text, "why");
}

proptest! {
    #[test]
    fn content_comes_out_as_it_went_in(content in "\\PC{0,30}", role in "[a-z]{1,5}") {
        let source = "{% for m in messages %}{% generation %}{{ m.role }}:{{ m.content }}{% endgeneration %}{% endfor %}";
        let rendered = render(source, &json!([{ "role": role, "content": content }])).expect("it renders");
        prop_assert_eq!(&rendered.text, &format!("{role}:{content}"));
        prop_assert_eq!(rendered.generated, vec![0..rendered.text.len()]);
    }

    #[test]
    fn any_text_compiles_or_is_refused(source in "(\\{%|%\\}|\\{\\{|\\}\\}|-|generation|endgeneration|if|endif|for a in messages|endfor|'| |\n|é){0,12}") {
        if let Ok(template) = compile(&source) {
            let _ = template.render(&messages(&json!([{ "role": "user", "content": "hi" }])), &Map::new(), false);
        }
    }
}
