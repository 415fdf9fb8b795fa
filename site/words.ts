// What the site says beside the documents, in each language.

/** Every word of the theme in a language. */
interface Words {
  readonly label: string;
  readonly lang: string;
  readonly title: string;
  readonly description: string;
  readonly start: string;
  readonly theme: Readonly<Record<string, unknown>>;
  readonly search: Readonly<Record<string, unknown>>;
}

export const words: Readonly<Record<"en" | "zh", Words>> = {
  en: {
    label: "English",
    lang: "en",
    title: "Consul on Alibaba Cloud",
    description: "HashiCorp Consul, highly available, on Alibaba Cloud: a Pulumi program in TypeScript",
    start: "Overview",
    theme: { outline: { level: [2, 3], label: "On this page" }, langMenuLabel: "Language" },
    search: {},
  },
  zh: {
    label: "中文",
    lang: "zh-CN",
    title: "阿里云上的 Consul",
    description: "在阿里云上运行高可用的 HashiCorp Consul：用 TypeScript 写的 Pulumi 程序",
    start: "概览",
    theme: {
      outline: { level: [2, 3], label: "本页内容" },
      docFooter: { prev: "上一篇", next: "下一篇" },
      darkModeSwitchLabel: "外观",
      lightModeSwitchTitle: "切换到浅色",
      darkModeSwitchTitle: "切换到深色",
      sidebarMenuLabel: "目录",
      returnToTopLabel: "回到顶部",
      langMenuLabel: "语言",
      skipToContentLabel: "跳到正文",
      notFound: {
        title: "没有这个页面",
        quote: "链接可能写错了，或者页面已经改名。",
        linkLabel: "回到首页",
        linkText: "首页",
      },
    },
    search: {
      button: { buttonText: "搜索", buttonAriaLabel: "搜索" },
      modal: {
        displayDetails: "显示详情",
        resetButtonTitle: "清除",
        backButtonTitle: "关闭搜索",
        noResultsText: "没有找到",
        footer: { selectText: "打开", navigateText: "选择", closeText: "关闭" },
      },
    },
  },
};
