//! Commands as documents show them: blocks that can be typed as they stand, and what a text speaks of.

/// A command that is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub words: Vec<String>,
    /// What it is given to read, in the lines below it.
    pub input: Option<String>,
    /// Whether it can be typed as it stands, or is only spoken of.
    pub whole: bool,
}

/// Commands of a block: behind a prompt if there is one, else every line if the first word is that of a command.
pub fn in_block(block: &str, is_command: impl Fn(&str) -> bool) -> Vec<Shown> {
    let joined = block.replace("\\\n", " ");
    let prompted = joined.lines().any(|line| line.starts_with("$ "));
    let first = joined.split_whitespace().next().unwrap_or_default();
    let mut shown = Vec::new();
    if !prompted && !is_command(first) {
        return shown;
    }
    let mut lines = joined.lines();
    while let Some(line) = lines.next() {
        let typed = line.strip_prefix("$ ");
        let Some(line) = typed.or((!prompted).then_some(line)) else {
            continue;
        };
        let input = line.split_once("<<").map(|(_, end)| {
            let end = end.trim();
            let below: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
            below.join("\n")
        });
        shown.extend(commands(line).into_iter().map(|words| Shown {
            words,
            input: input.clone(),
            whole: true,
        }));
    }
    shown
}

/// Commands that a text speaks of, between backticks.
pub fn in_text(text: &str, is_command: impl Fn(&str) -> bool) -> Vec<Shown> {
    let mut prose = String::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if !inside {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    let spans = prose.split('`').skip(1).step_by(2);
    let spans = spans.filter(|span| is_command(span.split_whitespace().next().unwrap_or_default()));
    let commands = spans.flat_map(|span| commands(&span.replace('\n', " ")));
    commands
        .map(|words| Shown {
            words,
            input: None,
            whole: false,
        })
        .collect()
}

/// The commands of a line of a shell, those among them whose output stands in others.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let (mut outer, mut rest) = (String::new(), line);
    while let Some((before, after)) = rest.split_once("$(") {
        let (inner, behind) = after.split_once(')').unwrap_or((after, ""));
        all.extend(parse(inner));
        outer.push_str(before);
        // Something stands there.
        outer.push('x');
        rest = behind;
    }
    outer.push_str(rest);
    all.extend(parse(&outer));
    all
}

/// The commands of a line, word by word.
fn parse(line: &str) -> Vec<Vec<String>> {
    let mut commands: Vec<Vec<String>> = Vec::new();
    let mut command = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ';' | '&' | '|') if letter == ';' || word.is_none() => {
                command.extend(word.take());
                commands.push(std::mem::take(&mut command));
            }
            (None, _) if letter.is_whitespace() => command.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(letter),
        }
    }
    command.extend(word);
    commands.push(command);
    commands.retain(|command| !command.is_empty());
    commands
}

#[test]
fn lines_are_read_as_a_shell_reads_them() {
    let line = r#"A=1 kubectl annotate oc a k='x: y' && helm list | head; ls # "no"#;
    let words: Vec<Vec<&str>> = vec![
        vec!["A=1", "kubectl", "annotate", "oc", "a", "k=x: y"],
        vec!["helm", "list"],
        vec!["head"],
        vec!["ls"],
    ];
    assert_eq!(commands(line), words);
    let words: Vec<Vec<&str>> = vec![
        vec!["cargo", "cluster", "kubeconfig"],
        vec!["export", "KUBECONFIG=x"],
    ];
    assert_eq!(
        commands("export KUBECONFIG=$(cargo cluster kubeconfig)"),
        words
    );
}

#[test]
fn what_a_command_is_given_to_read_is_no_command() {
    let block = "helm upgrade a b -f - <<END\nmetrics:\n  access: x\nEND\nhelm list";
    let shown = in_block(block, |word| word == "helm");
    let inputs: Vec<_> = shown.iter().map(|shown| shown.input.as_deref()).collect();
    assert_eq!(inputs, [Some("metrics:\n  access: x"), None]);
    assert_eq!(in_block("metrics:\n  a: b", |word| word == "helm"), []);
    let shown = in_block("$ helm list\nNAME  REVISION\n", |word| word == "helm");
    assert_eq!(shown.len(), 1);
}
